use std::fs;

use super::*;

/// The references and predictions of files with these names and contents, brought together.
fn together(
    references: (&str, &[u8]),
    predictions: (&str, &[u8]),
) -> Result<Matched, ScoreFileError> {
    let folder = tempfile::tempdir().unwrap();
    let write = |(name, content): (&str, &[u8])| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let (references, predictions) = (write(references), write(predictions));
    References::read(&references, None)?.bring_together(&Predictions::read(&predictions)?)
}

/// As (image, caption, number of references).
fn images(matched: &Matched) -> Vec<(&str, &str, usize)> {
    let image = |image: &'_ ScoredImage| image.references.len();
    matched.images.iter().map(|it| (it.id.as_str(), it.caption.as_str(), image(it))).collect()
}

const REFERENCES: (&str, &[u8]) =
    ("r.json", br#"{"one.jpg": ["a dog", "the dog"], "two.jpg": ["a cat", "the cat"]}"#);
const EXPECTED: [(&str, &str, usize); 2] = [("one.jpg", "a dog", 2), ("two.jpg", "a cat", 2)];

#[test]
fn references_are_read_in_every_form() {
    let predictions: (&str, &[u8]) = ("p.json", br#"{"one.jpg": "a dog", "two.jpg": "a cat"}"#);
    let forms: [(&str, &[u8]); 16] = [
        REFERENCES,
        // pycocoevalcap's own.
        ("r.json", br#"{"one.jpg": [{"image_id": "one.jpg", "id": 1, "caption": "a dog"}, {"caption": "the dog"}],
            "two.jpg": [{"caption": "a cat"}, {"caption": "the cat"}]}"#),
        ("r.json", br#"[{"image": "one.jpg", "caption": ["a dog", "the dog"]}, {"image": "two.jpg", "caption": ["a cat", "the cat"]}]"#),
        ("metadata.jsonl", b"{\"file_name\": \"one.jpg\", \"text\": \"a dog\"}\n{\"file_name\": \"two.jpg\", \"text\": \"a cat\"}\n\
            {\"file_name\": \"one.jpg\", \"text\": \"the dog\"}\n{\"file_name\": \"two.jpg\", \"text\": \"the cat\"}\n"),
        ("metadata.jsonl", b"{\"file_name\": \"one.jpg\", \"caption_0\": \"a dog\", \"caption_1\": \"the dog\"}\r\n\
            {\"file_name\": \"two.jpg\", \"caption_0\": \"a cat\", \"caption_1\": \"the cat\"}\r\n"),
        ("r.jsonl", b"[{\"file_name\": \"one.jpg\", \"captions\": [\"a dog\", \"the dog\"]},\n{\"file_name\": \"two.jpg\", \"captions\": [\"a cat\", \"the cat\"]}]"),
        ("r.jsonl", b"[\"one.jpg\", \"a dog\", \"the dog\"]\n[\"two.jpg\", \"a cat\", \"the cat\"]\n"),
        ("metadata.csv", b"file_name,text\none.jpg,a dog\none.jpg,the dog\ntwo.jpg,\"a cat\"\ntwo.jpg,the cat\n"),
        ("r.csv", b"\xEF\xBB\xBFimage;caption_0;caption_1;caption_2\none.jpg;a dog;the dog;\ntwo.jpg;a cat;;the cat\n"),
        ("captions.txt", b"image,caption\none.jpg,a dog\none.jpg,the dog\ntwo.jpg,a cat\ntwo.jpg,the cat\n"),
        ("results.csv", b"image_name| comment_number| comment\none.jpg| 0| a dog\none.jpg| 1   the dog\ntwo.jpg| 0| a cat\ntwo.jpg| 1| the cat\n"),
        ("Flickr8k.token.txt", b"one.jpg#0\ta dog\none.jpg#1\tthe dog\ntwo.jpg#0\ta cat\ntwo.jpg#1\tthe cat\n"),
        ("r.tsv", b"filename\tsplit\tcaption\none.jpg\tval\ta dog\none.jpg\tval\tthe dog\ntwo.jpg\tval\ta cat\ntwo.jpg\tval\tthe cat\n"),
        ("dataset_flickr8k.json", br#"{"images": [
            {"filename": "one.jpg", "filepath": "val", "split": "val", "sentences": [{"raw": "a dog"}, {"tokens": ["the", "dog"]}]},
            {"filename": "two.jpg", "filepath": "val", "split": "val", "sentences": [{"raw": "a cat"}, {"raw": "the cat"}]}]}"#),
        ("r.json", br#"{"score": NaN, "data": [{"path": "one.jpg", "caption": "a dog"}, {"path": "one.jpg", "caption": "the dog"},
            {"path": "two.jpg", "caption": ["a cat", "the cat"], "note": "\ud83d"}]}"#),
        ("r.txt", b"one.jpg,a dog\none.jpg,the dog\ntwo.jpg,a cat\ntwo.jpg,the cat\n"),
    ];
    for (name, content) in forms {
        let matched = together((name, content), predictions)
            .unwrap_or_else(|error| panic!("{}: {error:?}", String::from_utf8_lossy(content)));
        assert_eq!(images(&matched), EXPECTED, "{}", String::from_utf8_lossy(content));
    }
    let utf_16: Vec<u8> = "\u{feff}image,caption\r\none.jpg,a dog\r\none.jpg,the dog\r\ntwo.jpg,a cat\r\ntwo.jpg,the cat\r\n"
        .encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(images(&together(("captions.txt", &utf_16), predictions).unwrap()), EXPECTED);
}

#[test]
fn predictions_are_read_in_every_form() {
    let forms: [(&str, &[u8]); 14] = [
        ("p.json", br#"{"one.jpg": [{"caption": "a dog"}], "two.jpg": [{"image_id": 7, "caption": "a cat"}]}"#),
        ("p.json", br#"[{"file_name": "one.jpg", "generated_text": "a dog"}, {"file_name": "two.jpg", "generated_text": "a cat"}]"#),
        ("p.json", br#"[[{"image": "one.jpg", "generated_text": "a dog"}], [{"image": "two.jpg", "generated_text": "a cat"}]]"#),
        ("p.jsonl", b"{\"path\": \"x/one.jpg\", \"caption\": \"a dog\", \"score\": -Infinity}\n\n{\"path\": \"x/two.jpg\", \"caption\": \"a cat\", \"score\": NaN}"),
        ("p.jsonl", b"{\"one\": \"a dog\"}\n{\"two\": \"a cat\"}\n"),
        ("p.jsonl", b"{\"path\": \"one.jpg\", \"prediction\": \"a dog\"}\n{\"path\": \"two.jpg\", \"prediction\": \"a cat\"}"),
        ("p.csv", b"file_name,prediction\none.jpg,a dog\ntwo.jpg,a cat\n"),
        ("p.csv", b"id;caption\none;a dog\ntwo;a cat\n"),
        ("metadata.jsonl", b"{\"file_name\": \"one.jpg\", \"text\": \"a dog\"}\n{\"file_name\": \"two.jpg\", \"text\": \"a cat\"}\n"),
        ("p.tsv", b"[2019] trip/one.jpg\ta dog\n[2019] trip/two.jpg\ta cat\n"),
        ("p.tsv", b"{set}/one.jpg\ta dog\n{set}/two.jpg\ta cat\n"),
        ("p.tsv", b"C:\\photos\\one.jpg\ta dog\rC:\\photos\\two.jpg\ta cat\r"),
        ("p.txt", b"one.jpg#0\ta dog\ntwo.jpg#0\ta cat\n"),
        ("p.json", br#"{"images": [{"id": 1, "file_name": "one.jpg"}, {"id": 2, "file_name": "two.jpg"}],
            "annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": "2", "caption": "a cat"}]}"#),
    ];
    for (name, content) in forms {
        let matched = together(REFERENCES, (name, content))
            .unwrap_or_else(|error| panic!("{}: {error:?}", String::from_utf8_lossy(content)));
        assert_eq!(images(&matched), EXPECTED, "{}", String::from_utf8_lossy(content));
        assert!(matched.extra.is_empty());
    }
}

#[test]
fn what_caption_prints_is_read_back() {
    use crate::escape::escape;
    let names = ["two\nlines.jpg", "tab\tname.jpg", "back\\slash\\name.jpg", "plain.jpg"];
    let references: Map<String, Value> =
        names.iter().map(|name| ((*name).into(), serde_json::json!(["a dog"]))).collect();
    let lines: String = names
        .iter()
        .map(|name| format!("{}\t{}\n", escape(name.as_bytes()), escape(b"a \\ dog\n")))
        .collect();
    let references = serde_json::to_vec(&references).unwrap();
    let matched = together(("r.json", &references), ("p.tsv", lines.as_bytes())).unwrap();
    assert_eq!(matched.images.len(), 4);
    assert!(matched.images.iter().all(|image| image.caption == "a \\ dog\n"), "{matched:?}");
}

#[test]
fn one_id_is_one_image_however_it_is_written() {
    let coco = br#"{"images": [{"id": 42.0, "file_name": "COCO_val2014_000000000042.jpg"}, {"id": "7"}],
        "annotations": [{"image_id": 42, "caption": "a dog"}, {"image_id": "42", "caption": "the dog"},
        {"image_id": 7.0, "caption": "a cat"}]}"#;
    for (one, two) in [
        ("42", "7"),
        ("\"42\"", "\"7\""),
        ("42.0", "7.0"),
        ("\"42.0\"", "\"000000000007\""),
        ("\"COCO_val2014_000000000042\"", "\"COCO_val2014_000000000007.jpg\""),
        ("\"000000000042.jpg\"", "\"val2014/000000000007.png\""),
    ] {
        let results = format!(
            r#"[{{"image_id": {one}, "caption": "a dog"}}, {{"image_id": {two}, "caption": "a cat"}}]"#
        );
        let matched = together(("coco.json", coco), ("p.json", results.as_bytes())).unwrap();
        let expected = [("42", "a dog", 2), ("7", "a cat", 1)];
        assert_eq!(images(&matched), expected, "{results}");
    }
}

#[test]
fn a_name_that_is_another_images_is_not_taken_from_it() {
    let predictions = br#"{"b/one.jpg": "a cow", "one.jpg": "a dog", "two.jpg": "a cat"}"#;
    let matched = together(REFERENCES, ("p.json", predictions)).unwrap();
    assert_eq!(images(&matched), EXPECTED);
    assert_eq!(matched.extra, ["b/one.jpg"]);
    // Two that are both only like it: nobody knows which.
    let predictions = br#"{"b/one.jpg": "a cow", "a/one.jpg": "a dog", "two.jpg": "a cat"}"#;
    let error = together(REFERENCES, ("p.json", predictions)).unwrap_err();
    assert!(matches!(error, ScoreFileError::Twice { .. }), "{error}");
    let references = br#"{"a/one.jpg": ["a dog"], "b/one.png": ["a cat"]}"#;
    let predictions = br#"{"one.webp": "a cow"}"#;
    let error = together(("r.json", references), ("p.json", predictions)).unwrap_err();
    assert!(matches!(error, ScoreFileError::Ambiguous { .. }), "{error}");
}

#[test]
fn what_is_no_caption_is_named_with_its_place() {
    for (name, content, expected) in [
        (
            "p.json",
            r#"[{"image_id": 1, "caption": "a"}, {"image_id": 2, "caption": null}]"#,
            "p.json, entry 2: expected predictions as",
        ),
        (
            "p.json",
            r#"{"one.jpg": 5}"#,
            "`one.jpg`: expected a caption or a list of captions, found 5",
        ),
        (
            "p.jsonl",
            "{\"path\": \"one.jpg\", \"caption\": \"a\"}\n{\"caption\": \"b\"}\n",
            "p.jsonl:2: ",
        ),
        ("p.jsonl", "{\"path\": \"one.jpg\", \"caption\": \"a\"}\n{\"path\"\n", "p.jsonl:2: "),
        ("p.csv", "path,caption\none.jpg,a dog\ntwo.jpg\n", "p.csv:3: "),
        ("p.csv", "one,two,three\n1,2,3\n", "p.csv: expected predictions as"),
        ("p.json", "", "p.json holds no captions"),
        ("p.json", "[]", "holds no captions"),
    ] {
        let error = together(REFERENCES, (name, content.as_bytes())).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let error = format!("{error}: {cause}");
        assert!(error.contains(expected), "{content}: {error}");
    }
}
