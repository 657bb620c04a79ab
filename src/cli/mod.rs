//! The command line: arguments, messages, progress bars and exit codes.
