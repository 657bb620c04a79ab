//! `patchword caption` over folders: what is found, where captions go, and that nothing is lost when a run
//! is killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use serde_json::Value;

/// A tiny model, hardly trained, and a folder of photos.
struct World {
    folder: tempfile::TempDir,
    photos: PathBuf,
}

impl World {
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (_, _run) = train_tiny(folder.path(), count.max(12), 2);
        let photos = folder.path().join("photos");
        fs::create_dir_all(photos.join("sub")).unwrap();
        let files = walkdir::WalkDir::new(folder.path().join("shapes")).sort_by_file_name();
        let files = files.into_iter().map(|entry| entry.unwrap().into_path());
        let images = files.filter(|path| path.extension().is_some_and(|it| it == "png"));
        for (index, image) in images.take(count).enumerate() {
            let sub = if index % 2 == 0 { "" } else { "sub/" };
            fs::copy(image, photos.join(format!("{sub}{index:03}.png"))).unwrap();
        }
        Self { folder, photos }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, flags: &[&str]) -> std::process::Command {
        let mut command = patchword();
        command.current_dir(self.folder.path()).arg("caption").arg("photos");
        command.args(["--model", "run"]).args(flags);
        command
    }

    fn caption(&self, flags: &[&str]) -> Ended {
        run(&mut self.command(flags))
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

#[test]
fn captions_go_where_they_are_wanted() {
    let world = World::new(12);
    let usual = world.caption(&[]);
    assert_eq!(usual.code, 0, "{}", usual.stderr);
    assert!(usual.stderr.contains("12 written, 0 skipped, 0 failed"), "{}", usual.stderr);
    // Whatever the batches, captions are the same. The last digits of their probabilities are not: other
    // kernels serve many rows than few.
    let jsonl = world.caption(&["--format", "jsonl"]).stdout;
    for batch in ["1", "3", "auto"] {
        let again = world.caption(&["--batch-size", batch, "--workers", "3"]);
        assert_eq!(again.stdout, usual.stdout, "--batch-size {batch}");
    }
    let ended = world.caption(&[
        "-o",
        "a.jsonl",
        "-o",
        "a.csv",
        "-o",
        "a.json",
        "-o",
        "photos/metadata.jsonl",
        "--write",
        "txt",
        "--write",
        "json",
        "--write-to",
        "side",
        "--trigger",
        "ohwx",
        "--suffix",
        " !",
    ]);
    assert_eq!((ended.code, ended.stdout.as_str()), (0, ""), "{}", ended.stderr);
    let lines: Vec<Value> =
        world.text("a.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let plain: Vec<Value> = jsonl.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 12);
    for (line, plain) in lines.iter().zip(&plain) {
        let text = format!("ohwx, {} !", plain["caption"].as_str().unwrap());
        assert_eq!((&line["path"], &line["caption"]), (&plain["path"], &Value::from(text.clone())));
        let below =
            Path::new(line["path"].as_str().unwrap()).strip_prefix("photos").unwrap().to_owned();
        let side = world.at("side").join(&below);
        assert_eq!(fs::read_to_string(side.with_extension("txt")).unwrap(), format!("{text}\n"));
        let json = fs::read_to_string(side.with_extension("json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&json["caption"], &json["captions"][0]["words"]),
            (&line["caption"], &line["words"])
        );
    }
    let metadata: Value =
        serde_json::from_str(world.text("photos/metadata.jsonl").lines().last().unwrap()).unwrap();
    assert!(metadata["file_name"].as_str().unwrap().starts_with("sub/"), "{metadata}");
    let mut csv = csv_rows(&world.text("a.csv"));
    assert_eq!(csv.remove(0), ["path", "caption", "confidence"]);
    assert_eq!(csv[3][1], lines[3]["caption"].as_str().unwrap());
    let coco: Value = serde_json::from_str(&world.text("a.json")).unwrap();
    assert_eq!(coco.as_array().unwrap().len(), 12);
    // What is there is kept unless it is to be replaced.
    let ended = world.caption(&["-o", "a.csv"]);
    assert!(ended.code == 1 && ended.stderr.contains("--overwrite"), "{}", ended.stderr);
    let ended = world.caption(&["--write", "txt", "--write-to", "side"]);
    assert!(ended.stderr.contains("0 written, 12 skipped"), "{}", ended.stderr);
    let ended = world.caption(&["--write", "txt", "--write-to", "side", "--existing", "overwrite"]);
    assert!(ended.stderr.contains("12 written"), "{}", ended.stderr);
    let ended = world.caption(&["-o", "a.xyz"]);
    assert!(ended.code == 2 && ended.stderr.contains("--format"), "{}", ended.stderr);
}

fn csv_rows(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect()
}

#[test]
fn samples_follow_from_the_photo() {
    let world = World::new(8);
    let sampled = |paths: &[&str], more: &[&str]| {
        let mut command = patchword();
        command.current_dir(world.folder.path()).args(["caption", "--model", "run"]).args(paths);
        let ended = run(command.args(["--do-sample", "--seed", "5"]).args(more));
        let lines = ended.stdout.lines().map(|line| line.rsplit('/').next().unwrap().to_owned());
        lines.collect::<BTreeSet<String>>()
    };
    let all = sampled(&["photos"], &[]);
    assert_eq!(all.len(), 8);
    // Alone, in shares, and with a broken one before it.
    let alone = sampled(&["photos/sub/003.png"], &[]);
    assert!(alone.is_subset(&all), "{alone:?} {all:?}");
    let mut shares = BTreeSet::new();
    for share in ["0/3", "1/3", "2/3"] {
        shares.extend(sampled(&["photos"], &["--shard", share]));
    }
    assert_eq!(shares, all);
    fs::write(world.photos.join("000.png"), "broken").unwrap();
    assert!(sampled(&["photos"], &[]).is_subset(&all));
}

#[test]
fn a_manifest_knows_what_is_done() {
    let world = World::new(12);
    fs::copy(world.photos.join("000.png"), world.photos.join("same.png")).unwrap();
    fs::write(world.photos.join("bad.png"), "no image").unwrap();
    let flags = ["--manifest", "run.db", "-o", "a.jsonl", "--write", "txt"];
    let first = world.caption(&flags);
    assert_eq!(first.code, 3, "{}", first.stderr);
    let whole = world.text("a.jsonl");
    assert_eq!(whole.lines().count(), 13);
    let status = || {
        let ended = run(patchword().args(["caption", "status", "--json"]).arg(world.at("run.db")));
        serde_json::from_str::<Value>(&ended.stdout).unwrap()
    };
    let counts = status();
    assert_eq!(
        (&counts["done"], &counts["failed"], &counts["pending"]),
        (&13.into(), &1.into(), &0.into())
    );
    assert!(counts["failures"][0]["error"].as_str().unwrap().contains("bad.png"), "{counts}");
    // Again: nothing is captioned, and everything is written as before.
    let again = world.caption(&flags);
    assert!(
        again.stderr.contains("0 written, 13 known from before, 0 skipped, 1 failed"),
        "{}",
        again.stderr
    );
    assert_eq!(world.text("a.jsonl"), whole);
    // A photo that is mended is captioned, one that changed is captioned again, and that is said.
    fs::copy(world.photos.join("002.png"), world.photos.join("bad.png")).unwrap();
    fs::copy(world.photos.join("002.png"), world.photos.join("000.png")).unwrap();
    let ended = world.caption(&flags);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let ended = world.caption(&[
        "--manifest",
        "run.db",
        "-o",
        "b.csv",
        "--num-beams",
        "1",
        "--max-new-tokens",
        "3",
    ]);
    assert!(ended.stderr.contains("other settings"), "{}", ended.stderr);
    let ended = run(patchword()
        .current_dir(world.folder.path())
        .args(["caption", "export", "run.db", "-o", "c.jsonl"]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(world.text("c.jsonl").lines().count(), 14);
    // Not a manifest.
    fs::write(world.at("notes.db"), "these are notes, which nobody wants to lose").unwrap();
    let ended = world.caption(&["--manifest", "notes.db"]);
    assert!(ended.code == 1 && !ended.is_a_bug(), "{}", ended.stderr);
    assert!(world.text("notes.db").starts_with("these are notes"));
}

/// Killed at random moments and started again until it is done, a run leaves what an undisturbed one leaves,
/// to the byte, and captions nothing twice. `tests/killed_runs.py` is the long form.
#[test]
fn a_run_that_is_killed_goes_on() {
    let world = World::new(40);
    fs::write(world.photos.join("bad.png"), "no image").unwrap();
    fs::copy(world.photos.join("000.png"), world.photos.join("same.png")).unwrap();
    let flags = |name: &str| {
        let (database, lines) = (format!("{name}.db"), format!("{name}.jsonl"));
        let flags = ["--manifest", &database, "-o", &lines, "--write", "txt", "--write-to", name];
        let flags = flags.iter().chain(&["--batch-size", "3", "--num-beams", "2"]);
        flags.map(|flag| (*flag).to_owned()).collect::<Vec<String>>()
    };
    let command =
        |name: &str| world.command(&flags(name).iter().map(String::as_str).collect::<Vec<_>>());
    let started = Instant::now();
    let ended = run(&mut command("a"));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let whole = u64::try_from(started.elapsed().as_millis()).unwrap();
    let mut random = blake3::hash(&std::process::id().to_le_bytes());
    let mut kills = 0;
    for _ in 0..12 {
        let mut child = command("b");
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        random = blake3::hash(random.as_bytes());
        let moment = u64::from(u16::from_le_bytes([random.as_bytes()[0], random.as_bytes()[1]]));
        thread::sleep(Duration::from_millis(moment % whole.max(10)));
        child.kill().unwrap();
        kills += u32::from(child.wait().unwrap().code().is_none());
        for entry in walkdir::WalkDir::new(world.at("b")).into_iter().filter_map(Result::ok) {
            if entry.path().extension().is_some_and(|extension| extension == "txt") {
                assert!(
                    fs::read_to_string(entry.path()).unwrap().ends_with('\n'),
                    "half a sidecar"
                );
            }
        }
    }
    assert!(kills > 0, "every run was over before its end was due");
    let ended = run(&mut command("b"));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert_eq!(world.text("b.jsonl"), world.text("a.jsonl"));
    let sidecars = |folder: &str| {
        let mut all = snapshot(&world.at(folder));
        all.retain(|name, _| !name.ends_with(".new"));
        all
    };
    assert_eq!(sidecars("b"), sidecars("a"));
    assert_eq!(sidecars("a").len(), 41);
    for name in ["a", "b"] {
        let (database, csv) = (format!("{name}.db"), format!("{name}-export.jsonl"));
        let mut export = patchword();
        export.current_dir(world.folder.path()).args(["caption", "export", &database, "-o", &csv]);
        let ended = run(&mut export);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
    }
    assert_eq!(world.text("b-export.jsonl"), world.text("a-export.jsonl"));
    // What the model said is kept at once, and no photo that has captions goes to it again.
    let database = rusqlite::Connection::open(world.at("b.db")).unwrap();
    let most: u32 = database
        .query_row("SELECT max(attempts) FROM photos WHERE status = 'done'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(most, 1, "captioned twice");
}

#[test]
fn names_are_kept_byte_for_byte_and_a_bad_line_costs_a_line() {
    let world = World::new(4);
    let photo = world.photos.join("000.png");
    for name in
        ["two\nlines.png", "tab\tname.png", "-dash.png", "img[1].png", "50%.png", ".hidden.png"]
    {
        fs::copy(&photo, world.photos.join(name)).unwrap();
    }
    fs::create_dir(world.photos.join("@eaDir")).unwrap();
    fs::copy(&photo, world.photos.join("@eaDir/thumb.png")).unwrap();
    let ended = world.caption(&[]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (0, 9), "{ended:?}");
    assert!(ended.stdout.contains("photos/two\\nlines.png\t"), "{}", ended.stdout);
    assert_eq!(world.caption(&["--hidden"]).stdout.lines().count(), 11);
    let list = "\u{FEFF}photos/img[1].png\r\nphotos/gone.png\r\n\r\nphotos/50%.png\r\n".to_owned();
    fs::write(world.at("list.txt"), list).unwrap();
    let ended = run(patchword().current_dir(world.folder.path()).args([
        "caption",
        "--model",
        "run",
        "--files-from",
        "list.txt",
    ]));
    assert_eq!((ended.code, ended.stdout.lines().count()), (3, 2), "{ended:?}");
    assert!(ended.stderr.contains("list.txt:2: photos/gone.png"), "{}", ended.stderr);
}
