use std::fs;

use super::*;
use crate::caption::WordProbability;

fn shaped(text: &str) -> Vec<Shaped> {
    let words = vec![WordProbability { word: "dog".into(), probability: 0.123_456_79 }];
    let caption = Caption { caption: "a dog".into(), token_ids: vec![1], score: -0.1, words };
    vec![Shaped { text: text.into(), caption }]
}

fn input(path: &Path) -> Input {
    Input::file(path, path.file_name().unwrap())
}

#[test]
fn what_became_of_a_photo_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (file, photo) = (folder.path().join("run.db"), folder.path().join("a.jpg"));
    fs::write(&photo, "x").unwrap();
    let hash = input(&photo).content_hash().unwrap();
    let stamp = Stamp::of(&fs::metadata(&photo).unwrap());
    let (photo, other) = (input(&photo), input(&folder.path().join("b.jpg")));
    {
        let manifest = Manifest::open(&file).unwrap();
        manifest.expect(&[(0, other.clone()), (1, photo.clone())]).unwrap();
        let captions = shaped("A dog!");
        let (stamp, hash) = (Some(&stamp), Some(hash.as_str()));
        let keeping = Keeping { input: &photo, stamp, hash, captions: &captions };
        manifest.keep(&[keeping], ("name", "m", "s")).unwrap();
        assert_eq!(manifest.counts().unwrap().pending, 2);
        let failed = Settled::Failed("cut short".into());
        manifest.settle(&[(&photo, Settled::Done), (&other, failed)]).unwrap();
        manifest.note_fact("run", &vec![1, 2]).unwrap();
    }
    let manifest = Manifest::open(&file).unwrap();
    assert_eq!(manifest.fact("run").unwrap(), Some(vec![1, 2]));
    assert_eq!(manifest.fact::<u64>("no").unwrap(), None);
    let entry = manifest.entry(&photo).unwrap().unwrap();
    assert_eq!((&entry.captions, &entry.input), (&shaped("A dog!"), &photo));
    assert!(entry.is_current(&stamp));
    assert!(!entry.is_current(&Stamp { bytes: 2, ..stamp.clone() }));
    assert_eq!(manifest.captions_of(&hash, "m", "s").unwrap(), Some(shaped("A dog!")));
    assert_eq!(manifest.captions_of(&hash, "n", "s").unwrap(), None);
    // Seen again, in another order: what is known stays.
    manifest.expect(&[(0, photo.clone()), (1, other.clone())]).unwrap();
    assert_eq!(manifest.counts().unwrap(), Counts { done: 1, failed: 1, ..Counts::default() });
    let mut order = Vec::new();
    manifest
        .for_each::<ManifestError>(None, &mut |entry| {
            order.push((entry.input.relative, entry.error));
            Ok(())
        })
        .unwrap();
    assert_eq!(order, [("a.jpg".into(), None), ("b.jpg".into(), Some("cut short".into()))]);
}

#[test]
fn one_run_at_a_time_and_nothing_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.db");
    let manifest = Manifest::open(&file).unwrap();
    assert!(matches!(Manifest::open(&file), Err(ManifestError::InUse { .. })));
    assert_eq!(Manifest::read(&file).unwrap().counts().unwrap(), Counts::default());
    drop(manifest);
    Manifest::open(&file).unwrap();
    let foreign = folder.path().join("other.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
    let before = fs::read(&foreign).unwrap();
    assert!(matches!(Manifest::open(&foreign), Err(ManifestError::Foreign { .. })));
    let text = folder.path().join("notes.txt");
    fs::write(&text, "some text that is no database, of more than a few bytes").unwrap();
    assert!(Manifest::open(&text).unwrap_err().to_string().contains("cannot be used"));
    assert_eq!(fs::read(&foreign).unwrap(), before);
    assert!(matches!(
        Manifest::read(&folder.path().join("no.db")),
        Err(ManifestError::NotFound { .. })
    ));
}
