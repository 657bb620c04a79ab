use std::fs;

use super::*;

fn found(named: Vec<Named>, config: &InputConfig) -> (Vec<String>, Vec<String>) {
    let (mut photos, mut errors) = (Vec::new(), Vec::new());
    find(named, config, &mut |found| {
        match found {
            Ok(input) => photos.push(input.relative.to_string_lossy().into_owned()),
            Err(error) => errors.push(error.to_string()),
        }
        true
    });
    (photos, errors)
}

fn folder(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }
    folder
}

fn path(folder: &tempfile::TempDir, name: &str) -> Named {
    Named::Path(folder.path().join(name))
}

#[test]
fn a_folder_has_its_photos_in_order_and_no_housekeeping() {
    let names = ["b/c.PNG", "a.jpg", "notes.txt", ".hidden.jpg", "@eaDir/a.jpg", "__MACOSX/a.jpg"];
    let folder = folder(&names);
    let usual = InputConfig::default();
    assert_eq!(found(vec![path(&folder, "")], &usual).0, ["a.jpg", "b/c.PNG"]);
    let flat = InputConfig { recursive: false, ..usual.clone() };
    assert_eq!(found(vec![path(&folder, "")], &flat).0, ["a.jpg"]);
    let hidden = InputConfig { hidden: true, ..usual.clone() };
    assert_eq!(found(vec![path(&folder, "")], &hidden).0.len(), 5);
    let pattern = |text| vec![Pattern::new(text).unwrap()];
    let some = InputConfig { include: pattern("*.png"), ..usual.clone() };
    assert_eq!(found(vec![path(&folder, "")], &some).0, ["b/c.PNG"]);
    for text in ["b", "b/*", "**/c.png"] {
        let others = InputConfig { exclude: pattern(text), ..usual.clone() };
        assert_eq!(found(vec![path(&folder, "")], &others).0, ["a.jpg"], "{text}");
    }
    // Each file once, however it is named.
    let twice = vec![path(&folder, "b/../a.jpg"), path(&folder, ""), path(&folder, "a.jpg")];
    assert_eq!(found(twice, &usual).0, ["a.jpg", "b/c.PNG"]);
    let (photos, errors) = found(vec![path(&folder, "none"), path(&folder, "no*")], &usual);
    assert!(photos.is_empty() && errors.len() == 2, "{errors:?}");
    assert!(errors[1].ends_with("matches no image"), "{errors:?}");
}

#[test]
fn what_exists_is_meant_before_what_matches() {
    let folder =
        folder(&["[2019] trip (1)/img[1].jpg", "[2019] trip (1)/50%.jpg", "{set}/x.jpg", "i.jpg"]);
    let usual = InputConfig::default();
    for (name, photos) in [
        ("[2019] trip (1)", 2),
        ("[2019] trip (1)/*.jpg", 2),
        ("[2019] trip (1)/img[1].jpg", 1),
        ("[2019] trip (1)/img[[]1].jpg", 1),
        ("{set}", 1),
        ("{set}/*", 1),
        ("[h-j].jpg", 1),
        ("{h,i}.jpg", 1),
    ] {
        let (found, errors) = found(vec![path(&folder, name)], &usual);
        assert_eq!((found.len(), errors.len()), (photos, 0), "{name}: {errors:?}");
    }
    assert_eq!(braces("s/{008..010}.tar"), ["s/008.tar", "s/009.tar", "s/010.tar"]);
    assert_eq!(braces("{a,b}{1..2}"), ["a1", "a2", "b1", "b2"]);
    assert_eq!(braces("{a"), ["{a"]);
}

#[test]
fn a_bad_line_of_a_list_costs_a_line() {
    let folder = folder(&["a.jpg", "b c.jpg", "d/e.jpg"]);
    let at = |name: &str| folder.path().join(name).display().to_string();
    let list = |text: Vec<u8>, nul| {
        let lines = Box::new(io::Cursor::new(text));
        found(vec![Named::List(List { name: "list".into(), lines, nul })], &InputConfig::default())
    };
    let lines = [at("a.jpg"), at("gone.jpg"), String::new(), at("b c.jpg"), at("d")];
    let (photos, errors) = list(format!("\u{FEFF}{}\r\n", lines.join("\r\n")).into_bytes(), false);
    assert_eq!(photos, ["a.jpg", "b c.jpg", "e.jpg"]);
    assert!(errors.len() == 1 && errors[0].starts_with("list:2: "), "{errors:?}");
    for nul in [true, false] {
        assert_eq!(list(lines.join("\0").into_bytes(), nul).0, ["a.jpg", "b c.jpg", "e.jpg"]);
    }
    let wide: Vec<u8> = format!("\u{FEFF}{}\r\n", lines.join("\r\n"))
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(list(wide, false).0, ["a.jpg", "b c.jpg", "e.jpg"]);
}

#[cfg(unix)]
#[test]
fn links_and_bytes() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    let folder = folder(&["a.jpg", "sub/b.jpg"]);
    let at = |name: &str| folder.path().join(name);
    symlink(".", at("sub/loop")).unwrap();
    symlink("..", at("sub/up")).unwrap();
    symlink("gone.txt", at("notes.txt")).unwrap();
    let usual = InputConfig::default();
    let (photos, errors) = found(vec![path(&folder, "")], &usual);
    assert_eq!(
        (photos.as_slice(), errors.len()),
        (&["a.jpg".to_owned(), "sub/b.jpg".to_owned()][..], 0)
    );
    // A photo that is not there any more is an input, whose reading says so.
    symlink("gone.jpg", at("dead.jpg")).unwrap();
    assert_eq!(found(vec![path(&folder, "")], &usual).0.len(), 3);
    let name = std::ffi::OsStr::from_bytes(b"caf\xE9.jpg");
    fs::write(folder.path().join(name), "").unwrap();
    let bytes = [folder.path().as_os_str().as_bytes(), b"/caf\xE9.jpg\n"].concat();
    let lines = Box::new(io::Cursor::new(bytes));
    let mut names = Vec::new();
    let list = Named::List(List { name: "-".into(), lines, nul: false });
    find([list], &usual, &mut |found| {
        names.push(found.unwrap().path.file_name().unwrap().to_owned());
        true
    });
    assert_eq!(names, [name]);
}
