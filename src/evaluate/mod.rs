//! How good a captioner is on a split: loss, scene accuracy, attention pointing.
