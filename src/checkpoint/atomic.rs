//! Folders and files that are either whole or not there: written beside, synced, renamed.
//!
//! A name that the user gives may stand for more than a file. A link keeps leading where it leads, a
//! pipe or a device is written through, and what cannot be written without harm is refused.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// Writes a folder at `target` through `fill`, which gets a temporary folder beside it. A kill at any
/// moment leaves the old folder or the new one; [`recover`] mends the moment between. Where `target` is a
/// link, the folder that it leads to is replaced. Of the old folder only what `is_ours` names is given up:
/// anything else moves into the new one.
///
/// # Errors
/// What could not be written, or the error of `fill`; the old folder is then untouched.
pub fn replace_folder<E: From<CheckpointError>>(
    target: &Path,
    is_ours: impl Fn(&str) -> bool,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    recover(target);
    let io = |path: &Path, source| E::from(CheckpointError::io(path, source));
    let target = &end_of_links(target).map_err(|source| io(target, source))?;
    let parent = folder_of(target);
    fs::create_dir_all(parent).map_err(|source| io(parent, source))?;
    let (fresh, old) = (sibling(target, "new"), sibling(target, "old"));
    remove(&fresh);
    fs::create_dir(&fresh).map_err(|source| io(&fresh, source))?;
    let filled = fill(&fresh);
    let synced = filled.and_then(|()| sync_tree(&fresh).map_err(|source| io(&fresh, source)));
    if let Err(error) = synced {
        remove(&fresh);
        return Err(error);
    }
    if target.exists() {
        remove(&old);
        fs::rename(target, &old).map_err(|source| io(target, source))?;
    }
    fs::rename(&fresh, target).map_err(|source| io(target, source))?;
    sync(parent).map_err(|source| io(parent, source))?;
    // If something of the user's cannot be moved, it stays where it is, and so does the old folder.
    if keep_foreign(&old, target, is_ours).is_ok() {
        remove(&old);
    }
    Ok(())
}

/// What a kill between two renames left aside of a folder that is not there, where it lies.
pub fn left_aside(target: &Path) -> Option<PathBuf> {
    let target = end_of_links(target).ok()?;
    let old = sibling(&target, "old");
    (!target.exists() && old.exists()).then_some(old)
}

/// As [`replace_folder`], where nothing may be: `target` must not exist, not as a dead link either.
///
/// # Errors
/// That something is there; what could not be written, or the error of `fill`.
pub fn create_folder<E: From<CheckpointError>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    ensure_absent(target)?;
    replace_folder(target, |_| false, fill)
}

/// That nothing is at `target`, not even a link that leads nowhere.
///
/// # Errors
/// [`CheckpointError::Invalid`] where something is.
pub fn ensure_absent(target: &Path) -> Result<(), CheckpointError> {
    match fs::symlink_metadata(target) {
        Err(_) => Ok(()),
        Ok(_) => Err(CheckpointError::Invalid {
            file: target.into(),
            problem: "exists already; name another place".into(),
        }),
    }
}

/// Puts back what a kill between two renames left aside; for the writer of the folder alone.
pub fn recover(target: &Path) {
    if let (Some(old), Ok(target)) = (left_aside(target), end_of_links(target)) {
        // If this fails the folder is reported as missing, with the old one still there.
        let _ = fs::rename(old, target);
    }
}

/// Moves what is not ours from `old`, if it is there, into `target`.
fn keep_foreign(old: &Path, target: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<()> {
    if !old.exists() {
        return Ok(());
    }
    for name in foreign_entries(old, is_ours)? {
        let place = target.join(&name);
        if fs::symlink_metadata(&place).is_err() {
            fs::rename(old.join(&name), place)?;
        }
    }
    Ok(())
}

/// What is in `folder` and not ours by its name, in order.
///
/// # Errors
/// A folder that cannot be listed.
pub fn foreign_entries(
    folder: &Path,
    is_ours: impl Fn(&str) -> bool,
) -> io::Result<BTreeSet<OsString>> {
    let mut foreign = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.to_str().is_some_and(&is_ours) {
            foreign.insert(name);
        }
    }
    Ok(foreign)
}

/// Writes `contents` as [`write_file`] does.
///
/// # Errors
/// The file that could not be written.
pub fn replace_file(target: &Path, contents: &[u8]) -> Result<(), CheckpointError> {
    write_file(target, |out| out.write_all(contents))
}

/// Writes what the user asked to have at `target`: the one way of every output. A file is replaced when the
/// new one is whole; a link stays, and what it leads to is written; a pipe or a character device is written
/// through. The permissions of a file that is replaced stay.
///
/// # Errors
/// The file that could not be written, which is then as it was: a folder, a block device, a socket, a file
/// that this user may not write, a disk that is full, an error of `write`.
pub fn write_file(
    target: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CheckpointError> {
    let io = |source| CheckpointError::io(target, source);
    match Place::of(target).map_err(io)? {
        Place::Stream(file) => {
            let mut out = BufWriter::new(file);
            write(&mut out).and_then(|()| out.flush()).map_err(io)
        }
        Place::File(file) => replace_regular(&file, |fresh| {
            let mut out = BufWriter::new(File::create_new(fresh).map_err(io)?);
            write(&mut out).and_then(|()| out.flush()).map_err(io)
        })
        .map_err(|error| match error {
            // Of the file that was named, not of where it leads.
            CheckpointError::Io { source, .. } => io(source),
            error => error,
        }),
    }
}

/// Replaces one file by what `write` puts where it is told to; where `target` is a link, what it leads to.
///
/// # Errors
/// The file that could not be written, or the error of `write`; the old file is then untouched. What is
/// neither a file nor absent is refused.
pub fn replace_file_by(
    target: &Path,
    write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let stream = || CheckpointError::Invalid {
        file: target.into(),
        problem: "is a pipe or a device; expected the name of a file".into(),
    };
    // Asked before anything is opened: a pipe that nobody reads would wait for ever.
    if fs::metadata(target).is_ok_and(|metadata| is_stream(metadata.file_type())) {
        return Err(stream());
    }
    match Place::of(target).map_err(|source| CheckpointError::io(target, source))? {
        Place::File(file) => replace_regular(&file, write),
        Place::Stream(_) => Err(stream()),
    }
}

fn replace_regular(
    file: &Path,
    write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let fresh = sibling(file, "new");
    // What a kill left; if it is no file, writing refuses it.
    let _ = fs::remove_file(&fresh);
    let result = write(&fresh).and_then(|()| {
        let synced = File::open(&fresh).and_then(|file| file.sync_all());
        let kept = synced.and_then(|()| match fs::metadata(file) {
            Ok(old) => fs::set_permissions(&fresh, old.permissions()),
            Err(_) => Ok(()),
        });
        kept.and_then(|()| fs::rename(&fresh, file))
            .map_err(|source| CheckpointError::io(file, source))
    });
    if result.is_err() {
        // It holds nothing that anyone needs.
        let _ = fs::remove_file(&fresh);
    }
    result
}

/// Where what is written to a name goes.
enum Place {
    /// A regular file, or none yet, at the end of all links.
    File(PathBuf),
    /// A pipe, a terminal or another character device.
    Stream(File),
}

impl Place {
    fn of(target: &Path) -> io::Result<Self> {
        let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        let metadata = match fs::metadata(target) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return end_of_links(target).map(Self::File);
            }
            Err(error) => return Err(error),
        };
        // What a process has open (/dev/stdout, /dev/fd/63) is written where it stands, also if it is a file.
        let is_open = ["/dev", "/proc"].iter().any(|system| target.starts_with(system));
        let kind = metadata.file_type();
        if kind.is_dir() {
            refuse("is a folder; expected the name of a file")
        } else if kind.is_file() && is_open {
            OpenOptions::new().append(true).open(target).map(Self::Stream)
        } else if kind.is_file() {
            // Its folder would allow to replace it, but whoever may not write it may not replace it either.
            match OpenOptions::new().append(true).open(target) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    Err(io::Error::new(error.kind(), "is write-protected"))
                }
                Err(error) => Err(error),
                Ok(_) => end_of_links(target).map(Self::File),
            }
        } else if is_stream(kind) {
            OpenOptions::new().write(true).open(target).map(Self::Stream)
        } else {
            refuse("is neither a file nor a pipe; expected the name of a file")
        }
    }
}

#[cfg(unix)]
fn is_stream(kind: fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_fifo() || kind.is_char_device()
}

#[cfg(not(unix))]
fn is_stream(_: fs::FileType) -> bool {
    false
}

/// What `path` leads to, link after link; it need not exist.
pub fn end_of_links(path: &Path) -> io::Result<PathBuf> {
    /// Linux follows as many.
    const MOST: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..MOST {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_symlink() => {
                path = folder_of(&path).join(fs::read_link(&path)?);
            }
            _ => return Ok(path),
        }
    }
    Err(io::Error::other("a link that leads back to itself"))
}

/// Where a file or folder lies. Of a bare name the parent is an empty path, which nothing can open.
pub fn folder_of(target: &Path) -> &Path {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// The hidden name beside `target` under which it is written (`new`) or set aside (`old`).
pub fn sibling(target: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{suffix}"));
    target.with_file_name(name)
}

fn remove(folder: &Path) {
    // What is left behind is overwritten next time; nothing depends on its absence.
    let _ = fs::remove_dir_all(folder);
}

fn sync_tree(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync_tree(&path)? } else { File::open(&path)?.sync_all()? }
    }
    sync(folder)
}

/// Folders can be synced on Unix only; elsewhere the rename itself must do.
fn sync(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
    use std::process::Command;

    use super::*;

    fn reason(result: Result<(), CheckpointError>) -> String {
        let error = result.unwrap_err();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    }

    #[test]
    fn links_lead_where_they_did_and_permissions_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("real"), "old").unwrap();
        fs::set_permissions(at("real"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", at("link")).unwrap();
        symlink("link", at("link-to-link")).unwrap();
        symlink("later", at("dead")).unwrap();
        symlink("loop", at("loop")).unwrap();
        replace_file(&at("link-to-link"), b"new").unwrap();
        assert_eq!(fs::read(at("real")).unwrap(), b"new");
        assert_eq!(fs::metadata(at("real")).unwrap().permissions().mode() & 0o777, 0o640);
        replace_file(&at("dead"), b"made").unwrap();
        assert_eq!(fs::read(at("later")).unwrap(), b"made");
        for name in ["link", "link-to-link", "dead"] {
            assert!(fs::symlink_metadata(at(name)).unwrap().is_symlink(), "{name}");
        }
        assert!(replace_file(&at("loop"), b"x").is_err());
        let is_error = |result: Result<(), CheckpointError>| reason(result).contains("exists");
        assert!(is_error(ensure_absent(&at("dead"))) && is_error(ensure_absent(&at("real"))));
        ensure_absent(&at("nothing")).unwrap();
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 6, "no temporary files");
    }

    #[test]
    fn pipes_and_devices_are_written_through_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        replace_file(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), b"through");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        replace_file(Path::new("/dev/null"), b"nowhere").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        if Path::new("/dev/full").exists() {
            assert!(reason(replace_file(Path::new("/dev/full"), b"x")).contains("/dev/full"));
            assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device());
        }
        assert!(reason(replace_file_by(&pipe, |_| Ok(()))).contains("pipe"));
    }

    #[test]
    fn what_cannot_be_replaced_without_harm_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/photo"), "x").unwrap();
        fs::write(at("protected"), "old").unwrap();
        fs::set_permissions(at("protected"), fs::Permissions::from_mode(0o444)).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert!(reason(replace_file(&at("folder"), b"x")).contains("is a folder"));
        // Root may write what is write-protected; nobody else.
        if OpenOptions::new().append(true).open(at("protected")).is_ok() {
            replace_file(&at("protected"), b"new").unwrap();
            assert_eq!(fs::read(at("protected")).unwrap(), b"new");
            assert_eq!(fs::metadata(at("protected")).unwrap().permissions().mode() & 0o777, 0o444);
        } else {
            assert!(reason(replace_file(&at("protected"), b"x")).contains("write-protected"));
            assert_eq!(fs::read(at("protected")).unwrap(), b"old");
        }
        assert!(reason(replace_file(&at("socket"), b"x")).contains("neither"));
        assert!(replace_file(&at("nowhere/page"), b"x").is_err());
        // What fails half way leaves the old file.
        fs::write(at("page"), "old").unwrap();
        let broken = write_file(&at("page"), |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("the photo is gone"))
        });
        assert!(reason(broken).contains("the photo is gone"));
        assert_eq!(fs::read(at("page")).unwrap(), b"old");
        assert!(!sibling(&at("page"), "new").exists());
    }

    #[test]
    fn a_folder_gives_up_only_what_is_ours() {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("best");
        let write = |text: &'static str| {
            replace_folder(
                &target,
                |name| name == "weights",
                |folder| replace_file(&folder.join("weights"), text.as_bytes()),
            )
        };
        write("first").unwrap();
        fs::write(target.join("my notes.txt"), "mine").unwrap();
        fs::create_dir(target.join("sheets")).unwrap();
        fs::write(target.join("sheets/a.png"), "a").unwrap();
        write("second").unwrap();
        assert_eq!(fs::read(target.join("weights")).unwrap(), b"second");
        assert_eq!(fs::read(target.join("my notes.txt")).unwrap(), b"mine");
        assert_eq!(fs::read(target.join("sheets/a.png")).unwrap(), b"a");
        // Through a link too.
        let link = parent.path().join("link");
        symlink("best", &link).unwrap();
        replace_folder(
            &link,
            |name| name == "weights",
            |folder| replace_file(&folder.join("weights"), b"third"),
        )
        .unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(target.join("weights")).unwrap(), b"third");
        assert!(create_folder(&target, |_| Ok::<(), CheckpointError>(())).is_err());
        let mut left: Vec<_> =
            fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["best", "link"]);
    }
}
