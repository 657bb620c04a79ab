//! `patchword caption` shared among machines (`--shard`, `merge`), and as a process that other programs ask
//! (`--serve-stdin`).

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// Drawn scenes, and a tiny model that has hardly been trained.
fn world(photos: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    train_tiny(folder.path(), photos.max(12), 2);
    let images = walkdir::WalkDir::new(folder.path().join("shapes")).sort_by_file_name();
    let images = images.into_iter().map(|entry| entry.unwrap().into_path());
    let images = images.filter(|path| path.extension().is_some_and(|it| it == "png"));
    for (index, image) in images.take(photos).enumerate() {
        let target = folder.path().join(format!("photos/{}/{index:03}.png", index % 3));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(image, target).unwrap();
    }
    folder
}

fn caption(folder: &Path, flags: &[&str]) -> Command {
    let mut command = patchword();
    command.current_dir(folder).arg("caption").args(flags);
    command
}

fn merge(folder: &Path, flags: &[&str]) -> Ended {
    run(&mut caption(folder, &[&["merge"], flags].concat()))
}

#[test]
fn shares_that_are_joined_are_as_one_run() {
    let world = world(30);
    let folder = world.path();
    fs::write(folder.join("photos/bad.png"), "no image").unwrap();
    let run_of = |name: &str, more: &[&str]| {
        let database = format!("{name}.db");
        caption(folder, &[&["photos", "--model", "run", "--manifest", &database], more].concat())
    };
    assert_eq!(run(&mut run_of("whole", &["-o", "whole.jsonl"])).code, 3);
    let shares = ["0/3", "1/3", "2/3"];
    let children = shares.map(|share| {
        let mut command = run_of(&format!("s{}", &share[..1]), &["--shard", share]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    });
    let codes = children.map(|mut child| child.wait().unwrap().code().unwrap());
    // One of them has the bad one.
    assert_eq!(codes.iter().sum::<i32>(), 3, "{codes:?}");
    let ended = merge(folder, &["s0.db", "s1.db", "s2.db", "-o", "m.db"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stdout.starts_with("30 done, 1 failed, 0 skipped, 0 pending"), "{ended:?}");
    assert_eq!(ended.lines("warning: ").len(), 1, "{ended:?}");
    assert!(ended.stderr.contains("failed: photos/bad.png"), "{ended:?}");
    // Mended, and captioned by its share's next run, all is there.
    fs::copy(folder.join("photos/0/000.png"), folder.join("photos/bad.png")).unwrap();
    assert_eq!(run(&mut run_of("whole", &["-o", "whole.jsonl"])).code, 0);
    for share in shares {
        assert_eq!(run(&mut run_of(&format!("s{}", &share[..1]), &["--shard", share])).code, 0);
    }
    let refused = merge(folder, &["s0.db", "s1.db", "s2.db", "-o", "m.db"]);
    assert!(refused.code == 1 && refused.stderr.contains("--overwrite"), "{refused:?}");
    let ended = merge(folder, &["s2.db", "s0.db", "s1.db", "-o", "m.db", "--overwrite"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    assert!(ended.stdout.contains("every photo is there exactly once"), "{ended:?}");
    let ended = run(&mut caption(folder, &["export", "m.db", "-o", "m.jsonl"]));
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        let each = text.lines().map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            // The last digits of a probability follow from what lies beside a photo in its batch.
            [line["path"].clone(), line["caption"].clone(), line["token_ids"].clone()]
        });
        each.collect::<Vec<_>>()
    };
    assert_eq!(lines("m.jsonl"), lines("whole.jsonl"));
    let left: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");
}

#[test]
fn what_is_missing_or_doubled_is_named() {
    let world = world(20);
    let folder = world.path();
    for share in ["0/3", "1/3", "2/3"] {
        let database = format!("s{}.db", &share[..1]);
        let flags = ["photos", "--model", "run", "--manifest", &database, "--shard", share, "-q"];
        assert_eq!(run(&mut caption(folder, &flags)).code, 0);
    }
    let ended = merge(folder, &["s0.db", "s2.db", "-o", "m.db"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("share 1/3 is missing"), "{ended:?}");
    assert!(ended.stderr.contains("that the runs met are in no manifest"), "{ended:?}");
    fs::copy(folder.join("s0.db"), folder.join("copy.db")).unwrap();
    let all = ["s0.db", "copy.db", "s1.db", "s2.db", "-o", "n.db"];
    let ended = merge(folder, &all);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("share 0/3 is there twice: s0.db and copy.db"), "{ended:?}");
    assert!(ended.stderr.contains("in copy.db as well, with the same caption"), "{ended:?}");
    // A photo that nobody has, in shares that all ended.
    let database = rusqlite::Connection::open(folder.join("s1.db")).unwrap();
    let removed =
        database.execute("DELETE FROM photos WHERE path = (SELECT min(path) FROM photos)", []);
    assert_eq!(removed, Ok(1));
    drop(database);
    let ended = merge(folder, &["s0.db", "s1.db", "s2.db", "-o", "o.db"]);
    assert_eq!(ended.code, 3, "{ended:?}");
    assert!(ended.stderr.contains("1 photo that the runs met are in no manifest"), "{ended:?}");
    // Shares that saw other folders.
    fs::copy(folder.join("photos/0/000.png"), folder.join("photos/new.png")).unwrap();
    let flags = ["photos", "--model", "run", "--manifest", "s1.db", "--shard", "1/3", "-q"];
    assert_eq!(run(&mut caption(folder, &flags)).code, 0);
    let ended = merge(folder, &["s0.db", "s1.db", "s2.db", "-o", "p.db"]);
    assert!(ended.stderr.contains("s0.db met 20 photos and s1.db met 21"), "{ended:?}");
    for (flags, said) in [
        (["s0.db", "no.db", "-o", "q.db"], "no.db: no manifest here"),
        (["s0.db", "photos/0/000.png", "-o", "q.db"], "cannot be used"),
        (["s0.db", "s1.db", "-o", "no/q.db"], "no folder no"),
    ] {
        let ended = merge(folder, &flags);
        assert!(ended.code == 1 && ended.stderr.contains(said), "{ended:?}");
        assert!(!folder.join("q.db").exists());
    }
}

#[test]
fn a_line_in_is_a_line_out() {
    let world = world(6);
    let folder = world.path();
    let usual = run(&mut caption(folder, &["photos", "--model", "run", "--format", "jsonl"]));
    let usual: Vec<Value> =
        usual.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let path = usual[0]["path"].as_str().unwrap().to_owned();
    let encoded = BASE64_STANDARD.encode(fs::read(folder.join(&path)).unwrap());
    let mut command = caption(folder, &["--serve-stdin", "--model", "run"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut output = BufReader::new(output);
    let mut ask = |line: &str| {
        writeln!(input, "{line}").unwrap();
        let mut answer = String::new();
        output.read_line(&mut answer).unwrap();
        serde_json::from_str::<Value>(&answer).unwrap_or_else(|error| panic!("{answer}: {error}"))
    };
    let caption = &usual[0]["caption"];
    // One at a time: an answer does not wait for the next line.
    let answer = ask(&json!({"image": path, "id": 7}).to_string());
    assert_eq!(
        (&answer["id"], &answer["path"], &answer["caption"]),
        (&json!(7), &json!(path), caption)
    );
    assert!(answer["confidence"].is_f64() && answer["words"].is_array(), "{answer}");
    for image in [
        json!({"image": encoded, "id": {"a": 1}}),
        json!({"image": format!("data:image/png;base64,{encoded}")}),
        json!({"bytes": encoded}),
        json!({"image": {"bytes": encoded, "path": null}}),
        json!({"path": path}),
        json!(path),
    ] {
        let answer = ask(&image.to_string());
        assert_eq!(&answer["caption"], caption, "{image} {answer}");
        assert_eq!(answer["id"], image["id"], "{image} {answer}");
    }
    for (line, said) in [
        ("{", "not a line of JSON"),
        ("[]", "expected {\"image\""),
        ("{\"id\": 3}", "expected {\"image\""),
        ("{\"image\": 3}", "expected {\"image\""),
        ("{\"image\": \"gone.png\"}", "gone.png"),
        ("{\"bytes\": \"!\"}", "not base64"),
        ("{\"bytes\": \"aGVsbG8=\"}", "image"),
    ] {
        let answer = ask(line);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(said) && answer.get("caption").is_none(), "{line}: {answer}");
    }
    assert_eq!(ask("{\"id\": 3}")["id"], 3);
    // Many at once come back in their order.
    let many: String = usual.iter().rev().map(|line| format!("{}\n\n", line["path"])).collect();
    input.write_all(many.as_bytes()).unwrap();
    drop(input);
    let answers = output.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let answers: Vec<Value> = answers.map(|answer| answer["caption"].clone()).collect();
    let expected: Vec<Value> = usual.iter().rev().map(|line| line["caption"].clone()).collect();
    assert_eq!(answers, expected);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let ended = run(caption_with_paths(folder).args(["photos"]));
    assert_eq!(ended.code, 2, "{ended:?}");
}

fn caption_with_paths(folder: &Path) -> Command {
    caption(folder, &["--serve-stdin", "--model", "run"])
}

/// Devices share the work, and what they say is what one says.
#[test]
fn several_devices_say_what_one_says() {
    let world = world(24);
    let flags = ["photos", "--model", "run", "--batch-size", "3", "--manifest"];
    let of = |devices: &str, name: &str| {
        let more = [format!("{name}.db"), "-o".into(), format!("{name}.jsonl")];
        let mut command = caption(world.path(), &flags);
        let ended = run(command.args(more).args(["--device", devices]));
        assert_eq!(ended.code, 0, "{ended:?}");
        (ended.stderr, fs::read_to_string(world.path().join(format!("{name}.jsonl"))).unwrap())
    };
    let (said, three) = of("flex,flex,flex", "three");
    assert_eq!(said.matches("device: flex").count(), 3, "{said}");
    assert_eq!(three, of("flex", "one").1);
    assert_eq!(three.lines().count(), 24);
}

/// Waits until `done` or too long.
#[cfg(unix)]
fn wait_for(done: impl Fn() -> bool) -> bool {
    let start = std::time::Instant::now();
    while start.elapsed().as_secs() < 60 {
        if done() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    false
}

/// Photos that appear are captioned when they are whole, and Ctrl-C ends the watch.
#[cfg(unix)]
#[test]
fn a_watch_captions_what_appears() {
    use std::thread::sleep;
    use std::time::Duration;

    let world = world(4);
    let folder = world.path();
    let photo = fs::read(folder.join("photos/0/000.png")).unwrap();
    let other = fs::read(folder.join("photos/1/001.png")).unwrap();
    let mut command = caption(
        folder,
        &["photos", "--watch", "--model", "run", "--write", "txt", "-o", "a.jsonl"],
    );
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let there = |name: &str| folder.join("photos").join(name).is_file();
    assert!(wait_for(|| there("0/000.txt") && there("1/001.txt")), "what is there at first");
    // Half of it, and the rest when a whole file would long have been read.
    fs::write(folder.join("photos/half.png"), &photo[..photo.len() / 2]).unwrap();
    fs::create_dir_all(folder.join("photos/new/below")).unwrap();
    fs::write(folder.join("photos/new/below/b.png"), &other).unwrap();
    fs::write(folder.join("photos/notes.md"), "no photo").unwrap();
    assert!(wait_for(|| there("new/below/b.txt")), "a new folder");
    sleep(Duration::from_millis(1500));
    assert!(!there("half.txt"));
    fs::write(folder.join("photos/half.png"), &photo).unwrap();
    assert!(wait_for(|| there("half.txt")), "the other half");
    let mut interrupt = Command::new("kill");
    assert!(interrupt.arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, 130, "{ended:?}");
    assert!(ended.stderr.contains("6 written, 0 skipped, 0 failed"), "{ended:?}");
    assert_eq!(fs::read_to_string(folder.join("a.jsonl")).unwrap().lines().count(), 6);
    let ended = run(&mut caption(folder, &["photos/0/000.png", "--watch"]));
    assert!(ended.code == 2 && ended.stderr.contains("is no folder"), "{ended:?}");
}
