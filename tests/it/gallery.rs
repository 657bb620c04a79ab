//! `patchword evaluate --html`: the page of all images, and the lines for the model card.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

/// What a page must show and must not run.
const EVIL: &str = "a <script>alert('x')</script> & \"quoted\" dog";

/// A tiny captioner and the scenes that it learned from.
fn captioner(folder: &Path) -> PathBuf {
    let (_, output) = train_tiny(folder, 40, 8);
    output
}

/// Four photos with captions: two that are well, one with an evil name, one that is damaged.
fn photos(folder: &Path) -> PathBuf {
    let data = folder.join("my photos");
    fs::create_dir_all(data.join("test")).unwrap();
    let evil = if cfg!(windows) { "d '&#.png" } else { "d \"'<b>&#.png" };
    let mut lines = String::new();
    for (place, name) in ["a.png", "b.png", "c.png", evil].into_iter().enumerate() {
        let file = data.join("test").join(name);
        if name == "c.png" {
            fs::write(&file, b"\x89PNG\r\n\x1a\n and no more").unwrap();
        } else {
            let shade = 60 * place as u8;
            let photo = RgbImage::from_fn(600, 300, |x, _| Rgb([shade, (x / 3) as u8, 40]));
            photo.save(&file).unwrap();
        }
        let captions = json!([EVIL, "a red circle above a blue square", "a square"]);
        lines.push_str(&format!("{}\n", json!({"file_name": name, "text": captions})));
    }
    fs::write(data.join("test/metadata.jsonl"), lines).unwrap();
    data
}

fn evaluate(model: &Path, data: &Path, more: &[&str]) -> Ended {
    let mut command = patchword();
    command.arg("evaluate").arg("--model").arg(model).arg("--data").arg(data);
    run(command.args(["--split", "test"]).args(more))
}

/// The values of an attribute of the images, in their order.
fn attribute(page: &str, name: &str) -> Vec<Option<f64>> {
    let of = |item: &str| {
        let (_, rest) = item.split_once('>')?.0.split_once(&format!("data-{name}=\""))?;
        rest.split('"').next()?.parse().ok()
    };
    let (_, list) = page.split_once("<ol id=\"images\">").unwrap();
    list.split("<li").skip(1).filter(|item| item.contains("class=\"picture\"")).map(of).collect()
}

#[test]
fn a_page_shows_every_image_with_its_scores_and_runs_nothing_of_the_data() {
    let folder = tempfile::tempdir().unwrap();
    let (model, data) = (captioner(folder.path()), photos(folder.path()));
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (page_file, captions) = (file("page.html"), file("captions.jsonl"));

    let ended = evaluate(&model, &data, &["--html", &page_file, "--captions", &captions]);
    assert_eq!(ended.code, 3, "one photo is damaged: {}", ended.stderr);
    assert_eq!(ended.lines("gallery of 4 images: ").len(), 1, "{}", ended.stderr);
    assert!(ended.stdout.contains("for the model card:\n| data | split |"), "{}", ended.stdout);
    let page = fs::read_to_string(&page_file).unwrap();

    // Each image is there, in its order, and the damaged one says why it has no caption.
    let ciders = attribute(&page, "cider");
    assert_eq!(ciders.len(), 4);
    assert_eq!(ciders.iter().map(Option::is_some).collect::<Vec<_>>(), [true, true, false, true]);
    assert_eq!(page.matches("src=\"data:image/jpeg;base64,/9j/").count(), 3);
    assert_eq!(page.matches("width=\"256\" height=\"128\"").count(), 3);
    assert_eq!(page.matches("<p class=\"caption failed\">no caption: ").count(), 1);
    assert!(page.contains("<dt>without a caption</dt><dd>1</dd>"));

    // The scores are those of `patchword score`.
    let references = file("references.json");
    let text = fs::read_to_string(data.join("test/metadata.jsonl")).unwrap();
    let all: serde_json::Map<String, Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["file_name"] != "c.png")
        .map(|line| (line["file_name"].as_str().unwrap().to_owned(), line["text"].clone()))
        .collect();
    fs::write(&references, Value::Object(all).to_string()).unwrap();
    let per_image = file("scores.jsonl");
    let mut command = patchword();
    command.args(["score", "--references", &references, "--predictions", &captions]);
    let ended = run(command.args(["--per-image", &per_image]));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let scores = fs::read_to_string(&per_image).unwrap();
    let scores: Vec<Value> =
        scores.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (key, name) in
        [("cider", "CIDEr"), ("bleu-4", "Bleu_4"), ("rouge-l", "ROUGE_L"), ("meteor", "METEOR")]
    {
        let shown: Vec<f64> = attribute(&page, key).into_iter().flatten().collect();
        assert_eq!(shown.len(), scores.len(), "{key}");
        let mut expected: Vec<f64> =
            scores.iter().map(|score| score[name].as_f64().unwrap()).collect();
        let mut shown = shown;
        // Here by name, there by place in the data set.
        expected.sort_by(f64::total_cmp);
        shown.sort_by(f64::total_cmp);
        for (shown, expected) in shown.iter().zip(&expected) {
            assert!((shown - expected).abs() <= 5e-5, "{key}: {shown} and {expected}");
        }
    }
    for key in ["words", "same", "confidence"] {
        assert!(page.contains(&format!("<option value=\"{key}\">")), "{key}");
    }

    // Text is text, and nothing is loaded from anywhere.
    assert_eq!(page.matches("<script>").count(), 1);
    assert!(page.contains(
        "<li dir=\"auto\">a &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; \
         &quot;quoted&quot; dog</li>"
    ));
    if cfg!(unix) {
        assert!(page.contains("<bdi>test/d &quot;&#39;&lt;b&gt;&amp;#.png</bdi>"));
        assert!(!page.contains("<b>"));
    }
    assert!(!page.contains("http:") && !page.contains("https:"));
    assert!(page.contains("content=\"default-src 'none'; img-src data:;"));

    // The same once more is the same file; nothing is left beside it.
    let again = file("again.html");
    let ended = evaluate(&model, &data, &["--html", &again, "--json", "--quiet"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.lines("gallery").is_empty());
    assert!(fs::read(&page_file).unwrap() == fs::read(&again).unwrap());
    assert!(!folder.path().join(".page.html.new").exists());
    let value: Value = serde_json::from_str(&ended.stdout).unwrap();
    let card: Vec<&str> = value["model_card"].as_str().unwrap().lines().collect();
    assert_eq!(card.len(), 3, "{card:?}");
    let cells = |line: &str| line.split(" | ").count();
    assert_eq!(cells(card[0]), cells(card[2]));
    assert_eq!(card[1].matches("---|").count(), cells(card[0]));
    assert!(card[2].starts_with("| my photos | test | 3 | greedy | "), "{}", card[2]);

    // Links lead from the page to the photos.
    fs::create_dir(folder.path().join("pages")).unwrap();
    let linked = file("pages/linked.html");
    let ended = evaluate(&model, &data, &["--html", &linked, "--html-images", "link"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let page = fs::read_to_string(&linked).unwrap();
    assert!(!page.contains("base64,"));
    assert!(page.contains("src=\"../my%20photos/test/a.png\""));
    if cfg!(unix) {
        assert!(page.contains("href=\"../my%20photos/test/d%20%22%27%3Cb%3E%26%23.png\""));
    }
}

#[test]
fn a_page_of_drawn_scenes_shows_what_is_wrong_with_each_caption() {
    let folder = tempfile::tempdir().unwrap();
    let model = captioner(folder.path());
    let page = folder.path().join("scenes.html").display().to_string();
    let captions = folder.path().join("captions.jsonl");
    let data = folder.path().join("shapes");
    let named = captions.display().to_string();
    let ended = evaluate(&model, &data, &["--html", &page, "--captions", &named, "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let value: Value = serde_json::from_str(&ended.stdout).unwrap();
    let images = value["images"].as_u64().unwrap() as usize;
    let page = fs::read_to_string(&page).unwrap();
    let errors: Vec<f64> = attribute(&page, "errors").into_iter().flatten().collect();
    assert_eq!(errors.len(), images);
    let wrong = value["scenes"]["wrong"].as_array().unwrap();
    assert_eq!(errors.iter().filter(|errors| **errors > 0.0).count(), wrong.len());
    assert!(!wrong.is_empty(), "eight steps teach nobody");
    assert!(page.contains("<ul class=\"remarks\"><li>"));
    assert!(value["model_card"].as_str().unwrap().contains("| all right |"));
    let said = fs::read_to_string(&captions).unwrap();
    assert_eq!(said.lines().count(), images);

    // A scene that cannot be read is shown as such, and the others keep what is theirs.
    let second: Value = serde_json::from_str(said.lines().nth(1).unwrap()).unwrap();
    let broken = PathBuf::from(second["path"].as_str().unwrap());
    let broken = if broken.is_absolute() { broken } else { data.join(broken) };
    fs::write(&broken, b"no image").unwrap();
    let again = folder.path().join("again.html").display().to_string();
    let ended = evaluate(&model, &data, &["--html", &again]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let page = fs::read_to_string(&again).unwrap();
    let mut expected: Vec<Option<f64>> = errors.into_iter().map(Some).collect();
    expected[1] = None;
    assert_eq!(attribute(&page, "errors"), expected);
}

#[test]
fn a_page_that_cannot_be_written_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere/page.html").display().to_string();
    // Neither the model nor the data set is there: the page is looked at first.
    let ended = evaluate(Path::new("no-model"), Path::new("no-data"), &["--html", &nowhere]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("there is no folder"), "{}", ended.stderr);
    let ended = evaluate(Path::new("no-model"), Path::new("no-data"), &["--html-images", "link"]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("--html <FILE>"), "{}", ended.stderr);
}
