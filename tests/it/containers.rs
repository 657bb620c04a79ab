//! `patchword caption` from archives and tables, and into XMP and Parquet: what is read where it lies, what
//! goes where, and what stays as it was.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::common::*;
use serde_json::Value;

/// A tiny model, hardly trained, and a few photos.
struct World {
    folder: tempfile::TempDir,
    photos: Vec<PathBuf>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        train_tiny(folder.path(), 12, 2);
        let files = walkdir::WalkDir::new(folder.path().join("shapes")).sort_by_file_name();
        let files = files.into_iter().map(|entry| entry.unwrap().into_path());
        let photos = files.filter(|path| path.extension().is_some_and(|it| it == "png")).take(4);
        let photos = photos.collect();
        Self { folder, photos }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn caption(&self, flags: &[&str]) -> Ended {
        let mut command = patchword();
        command.current_dir(self.folder.path()).args(["caption", "--model", "run"]);
        run(command.args(flags))
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.at(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn captions(&self, name: &str) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let lines = self.lines(name);
        lines.iter().map(|line| (text(&line["path"]), text(&line["caption"]))).collect()
    }
}

fn tar(file: &Path, members: &[(&[u8], &[u8])]) {
    let mut archive = tar::Builder::new(File::create(file).unwrap());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        // As bytes: a name may be anything, also one that leads out of the archive.
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.finish().unwrap();
}

#[test]
fn shards_are_captioned_member_by_member() {
    let world = World::new();
    let bytes: Vec<Vec<u8>> = world.photos.iter().map(|photo| fs::read(photo).unwrap()).collect();
    fs::create_dir(world.at("s")).unwrap();
    // Captions far from their photos, two photos of one key, names with dots, names that lead elsewhere.
    tar(
        &world.at("s/00.tar"),
        &[
            (b"a.png", &bytes[0]),
            (b"../up.png", &bytes[1]),
            (b"./2021.05.png", &bytes[2]),
            (b"2021.06.png", &bytes[3]),
            (b"a.txt", b"old one\n"),
        ],
    );
    tar(
        &world.at("s/01.tar"),
        &[
            (b"b.png", b"first"),
            (b"b.jpg", &bytes[1]),
            (b"caf\xE9.png", &bytes[2]),
            (b"bad.png", b"no image"),
            (b"b.seg.png", &bytes[3]),
            (b"b.png", &bytes[0]),
        ],
    );
    let flags = ["s/{00..02}.tar", "-o", "o.jsonl", "--write", "txt", "--write-to", "side"];
    let more = ["--manifest", "m.db", "--template", "{existing}|{caption}"];
    let ended = world.caption(&[&flags[..], &more[..]].concat());
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    for problem in ["01.tar/bad.png", "s/02.tar: no such file"] {
        assert!(ended.stderr.contains(problem), "{problem}: {}", ended.stderr);
    }
    let captions = world.captions("o.jsonl");
    let names: Vec<&str> = captions.iter().map(|(path, _)| path.as_str()).collect();
    let expected = [
        "s/00.tar/a.png",
        "s/00.tar/up.png",
        "s/00.tar/2021.05.png",
        "s/00.tar/2021.06.png",
        "s/01.tar/b.jpg",
        "s/01.tar/b.png",
        "s/01.tar/caf\\xE9.png",
    ];
    assert_eq!(names, expected);
    // The captions are those of the photos as files.
    let mut plain = vec!["-o", "plain.jsonl"];
    plain.extend(world.photos.iter().map(|photo| photo.to_str().unwrap()));
    world.caption(&plain);
    let plain: Vec<String> =
        world.captions("plain.jsonl").into_iter().map(|(_, caption)| caption).collect();
    for (at, photo) in [(1, 1), (2, 2), (3, 3), (4, 1), (5, 0), (6, 2)] {
        assert_eq!(captions[at].1, plain[photo], "{}", names[at]);
    }
    assert_eq!(captions[0].1, format!("old one|{}", plain[0]));
    let side: BTreeSet<String> = snapshot(&world.at("side")).into_keys().collect();
    let expected = [
        "00.tar/2021.05.txt",
        "00.tar/2021.06.txt",
        "00.tar/a.txt",
        "00.tar/up.txt",
        "01.tar/b.jpg.txt",
        "01.tar/b.png.txt",
    ];
    assert!(expected.iter().all(|name| side.contains(*name)) && side.len() == 7, "{side:?}");
    assert!(!world.at("up.txt").exists() && !world.at("side/up.txt").exists());
    // Again: all that is done is known, also where the archive has grown.
    let again = world.caption(&[&flags[..], &more[..]].concat());
    assert!(again.stderr.contains("0 written, 7 known from before"), "{}", again.stderr);
    let ended = world.caption(&["s", "--write", "txt"]);
    assert!(ended.code == 2 && ended.stderr.contains("--write-to"), "{}", ended.stderr);
    // A folder without photos has those of its shards; one with photos has them only.
    let ended = world.caption(&["s", "-o", "folder.jsonl"]);
    assert_eq!((ended.code, world.captions("folder.jsonl").len()), (3, 7), "{}", ended.stderr);
    let whole = fs::read(world.at("s/00.tar")).unwrap();
    fs::write(world.at("cut.tar"), &whole[..bytes[0].len() + 1024 + 100]).unwrap();
    let ended = world.caption(&["cut.tar"]);
    assert!(
        ended.code == 3 && ended.stderr.contains("damaged behind its first 1"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stdout.lines().count(), 1);
}

#[test]
fn xmp_is_merged_and_embedded() {
    let world = World::new();
    fs::create_dir(world.at("p")).unwrap();
    for (name, photo) in ["a.png", "b.png", "c.png"].iter().zip(&world.photos) {
        fs::copy(photo, world.at("p").join(name)).unwrap();
    }
    let photo = ::image::open(world.at("p/c.png")).unwrap();
    photo.to_rgb8().save(world.at("p/d.jpg")).unwrap();
    fs::write(world.at("p/e.gif"), b"GIF89a no image").unwrap();
    fs::write(world.at("p/b.png.xmp"), "no XML <").unwrap();
    let pixels = |name: &str| ::image::open(world.at("p").join(name)).unwrap().to_rgba8();
    let before: Vec<_> = ["a.png", "b.png", "c.png", "d.jpg"].map(pixels).to_vec();
    let ended = world.caption(&["p", "--write", "xmp", "-o", "all.jsonl"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("b.png.xmp: cannot be"), "{}", ended.stderr);
    assert_eq!(fs::read(world.at("p/b.png.xmp")).unwrap(), b"no XML <");
    let packet = fs::read_to_string(world.at("p/a.png.xmp")).unwrap();
    let caption = world.captions("all.jsonl").swap_remove(0).1;
    let caption = quick_xml::escape::escape(caption.trim());
    assert!(
        packet.contains(&format!("<rdf:li xml:lang=\"x-default\">{caption}</rdf:li>")),
        "{packet}"
    );
    let flags = ["p", "--embed", "--manifest", "m.db", "--xmp-language", "en"];
    let ended = world.caption(&flags);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("e.gif") && ended.stderr.contains("4 written"),
        "{}",
        ended.stderr
    );
    assert_eq!(["a.png", "b.png", "c.png", "d.jpg"].map(pixels).to_vec(), before);
    let whole = snapshot(&world.at("p"));
    let again = world.caption(&flags);
    assert!(again.stderr.contains("0 written, 4 known"), "{}", again.stderr);
    let again = world.caption(&["p", "--embed"]);
    assert!(again.stderr.contains("0 written, 4 skipped"), "{}", again.stderr);
    assert_eq!(snapshot(&world.at("p")), whole);
    // Copies elsewhere, and the photos stay.
    let flags =
        ["p", "--embed", "--write-to", "copies", "--existing", "append", "--prefix", "new: "];
    world.caption(&flags);
    assert_eq!(snapshot(&world.at("p")), whole);
    let copy = fs::read(world.at("copies/a.png")).unwrap();
    let copy = String::from_utf8_lossy(&copy).into_owned();
    assert!(copy.contains(&format!("{caption}, new: {caption}</rdf:li>")), "{copy}");
}

#[cfg(feature = "columnar")]
#[test]
fn a_table_of_captions_is_a_table_of_photos_no_more() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::{Field, Row, RowAccessor};
    let world = World::new();
    let photos: Vec<&str> = world.photos.iter().map(|photo| photo.to_str().unwrap()).collect();
    let flags = ["-o", "a.parquet", "-o", "a.jsonl", "--num-beams", "2", "--num-captions", "2"];
    let ended = world.caption(&[&photos[..], &flags[..]].concat());
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let reader = SerializedFileReader::new(File::open(world.at("a.parquet")).unwrap()).unwrap();
    let rows: Vec<Row> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    let lines = world.lines("a.jsonl");
    assert_eq!((rows.len(), lines.len()), (8, 8));
    for (row, line) in rows.iter().zip(&lines) {
        let field = |wanted: &str| {
            row.get_column_iter().find(|(name, _)| *name == wanted).map(|(_, field)| field).unwrap()
        };
        for key in ["path", "caption", "model"] {
            assert_eq!(field(key), &Field::Str(line[key].as_str().unwrap().into()), "{row:?}");
        }
        let Field::ListInternal(words) = field("words") else { panic!("{row:?}") };
        let words: Vec<&str> = words
            .elements()
            .iter()
            .map(|word| match word {
                Field::Group(word) => word.get_string(0).unwrap().as_str(),
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = line["words"].as_array().unwrap().iter();
        let expected: Vec<&str> = expected.map(|word| word["word"].as_str().unwrap()).collect();
        assert_eq!(words, expected, "{row:?}");
    }
    // Its column `path` names photos; a table without one is said to be that.
    let ended = world.caption(&["a.parquet", "--allow-outside", "-o", "again.jsonl"]);
    assert_eq!((ended.code, world.lines("again.jsonl").len()), (0, 4), "{}", ended.stderr);
    for (place, bytes) in [("cut.parquet", 9), ("empty.parquet", 0)] {
        let whole = fs::read(world.at("a.parquet")).unwrap();
        fs::write(world.at(place), &whole[..bytes]).unwrap();
        let ended = world.caption(&[place]);
        assert!(ended.code == 1 && ended.stderr.contains(place), "{}", ended.stderr);
    }
    let ended = world.caption(&[photos[0], "--format", "parquet"]);
    assert!(ended.code == 2 && ended.stderr.contains("--output"), "{}", ended.stderr);
}
