//! Public models by their ids, from a server that the tests start: nothing here uses the network.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use crate::common::server::{Behaviour, COMMIT, ID, Request, Server, tag};
use crate::common::*;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

/// A model of nothing but names and sizes, for tests that only download.
fn weights() -> Vec<u8> {
    (0..120_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("config.json", br#"{"model_type": "blip"}"#.to_vec()),
        ("generation_config.json", b"{}".to_vec()),
        ("preprocessor_config.json", b"{\"size\": 64}".to_vec()),
        ("tokenizer.json", b"{\"tokens\": []}".to_vec()),
        ("README.md", b"---\nlicense: mit\n---\n# A model\n".to_vec()),
        ("model.safetensors", weights()),
        // None of these is needed beside the others.
        ("vocab.txt", b"a\nb\n".to_vec()),
        ("pytorch_model.bin", vec![1; 50_000]),
        ("tf_model.h5", vec![2; 50_000]),
    ]
}

const NEEDED: [&str; 6] = [
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "tokenizer.json",
];

fn serve(files: &[(&'static str, Vec<u8>)]) -> Server {
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    Server::start(&files)
}

/// The program with a cache of its own and no settings of the machine's.
fn client(endpoint: &str, home: &Path) -> Command {
    let mut command = patchword();
    for name in [
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", home);
    command
}

fn pull(server: &Server, home: &Path) -> Ended {
    run(client(&server.endpoint, home).args(["model", "pull", ID]))
}

fn model_cache(home: &Path) -> PathBuf {
    home.join("hub").join("models--tiny--captioner")
}

/// The names of the files whose bytes were asked for.
fn fetched(requests: &[Request]) -> Vec<&str> {
    let mut names: Vec<&str> = requests
        .iter()
        // The redirect to the bytes of a large file is no second download.
        .filter(|request| request.method == "GET" && !request.is_large)
        .map(Request::name)
        .collect();
    names.sort_unstable();
    names
}

#[track_caller]
fn assert_done(ended: &Ended) {
    assert_eq!(ended.code, 0, "{ended:#?}");
}

#[track_caller]
fn assert_failed(ended: &Ended, words: &[&str]) {
    assert!(!ended.is_a_bug(), "{ended:#?}");
    assert_eq!(ended.code, 1, "{ended:#?}");
    assert_eq!(ended.stdout, "", "{ended:#?}");
    assert_eq!(ended.lines("error: ").len(), 1, "{ended:#?}");
    for word in words {
        assert!(ended.stderr.contains(word), "does not say {word:?}: {ended:#?}");
    }
}

/// The file is in the snapshot, byte for byte.
#[track_caller]
fn assert_whole(home: &Path, name: &str, expected: &[u8]) {
    let file = model_cache(home).join("snapshots").join(COMMIT).join(name);
    let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert!(bytes == expected, "{name} differs");
}

/// No file is half there.
#[track_caller]
fn assert_no_remains(home: &Path) {
    for (name, _) in snapshot(home) {
        assert!(!name.ends_with(".incomplete"), "{name} was left");
    }
}

#[test]
fn pull_downloads_what_is_needed_in_the_usual_layout_once() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    let ended = pull(&server, home.path());
    assert_done(&ended);
    let cache = model_cache(home.path());
    let folder = cache.join("snapshots").join(COMMIT);
    assert_eq!(ended.stdout, format!("{}\n", folder.display()));
    assert!(ended.stderr.contains("downloaded model.safetensors (120.0 kB)"), "{ended:#?}");
    let requests = server.take_requests();
    assert_eq!(fetched(&requests), NEEDED);
    for request in &requests {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
        assert!(request.headers["user-agent"].starts_with("patchword/"), "{request:?}");
    }
    for (name, bytes) in files() {
        if NEEDED.contains(&name) {
            assert_whole(home.path(), name, &bytes);
            assert_eq!(fs::read(cache.join("blobs").join(tag(&bytes))).unwrap(), bytes, "{name}");
        }
    }
    #[cfg(unix)]
    {
        let link = fs::read_link(folder.join("config.json")).unwrap();
        assert!(link.starts_with("../../blobs"), "{}", link.display());
    }
    assert_eq!(fs::read_to_string(cache.join("refs/main")).unwrap(), COMMIT);
    assert!(cache.join(".no_exist").join(COMMIT).join("processor_config.json").is_file());
    assert_no_remains(home.path());

    let again = pull(&server, home.path());
    assert_done(&again);
    assert_eq!(again.stdout, ended.stdout);
    let requests = server.take_requests();
    let asked: Vec<_> = requests.iter().map(|one| (one.method.as_str(), one.name())).collect();
    assert_eq!(asked, [("HEAD", "config.json")], "a commit that is here is not asked for again");
}

/// A run of two steps, as `train` leaves it, and a photo.
struct Trained {
    folder: tempfile::TempDir,
    model: PathBuf,
    photo: PathBuf,
}

fn trained() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (_, output) = train_tiny(folder.path(), 24, 2);
        let photo = at("photo.png");
        RgbImage::from_fn(40, 30, |x, y| Rgb([(x * 6) as u8, (y * 8) as u8, 90]))
            .save(&photo)
            .unwrap();
        Trained { model: output.join("last"), photo, folder }
    })
}

#[test]
fn a_model_is_named_by_its_id_and_needs_no_network_the_second_time() {
    let Trained { folder, model, photo } = trained();
    let home = tempfile::tempdir().unwrap();
    let server = Server::of_folder(model);
    let caption = |name: &str, more: &[&str]| {
        let mut command = client(&server.endpoint, home.path());
        command.arg("caption").arg(photo).args(["--format", "jsonl", "--model", name]).args(more);
        run(&mut command)
    };
    let local = caption(model.to_str().unwrap(), &[]);
    assert_done(&local);
    // The same line, but for the name that the model was given.
    let expected = local.stdout.replace(model.to_str().unwrap(), ID);
    assert_ne!(expected, local.stdout);

    assert_failed(
        &caption(ID, &["--offline"]),
        &["tiny/captioner (revision main) is not in", "hint: where there is a network"],
    );
    assert_eq!(server.take_requests().len(), 0, "offline asks nobody");
    let first = caption(ID, &[]);
    assert_done(&first);
    assert_eq!(first.stdout, expected);
    assert!(!server.take_requests().is_empty());

    server.stop();
    for more in [&[][..], &["--offline"], &["--revision", COMMIT], &["--revision", "main"]] {
        let ended = caption(ID, more);
        assert_done(&ended);
        assert_eq!(ended.stdout, expected, "{more:?}");
    }
    assert_eq!(server.take_requests().len(), 0);

    // Every command that takes a model takes its id.
    let out = folder.path().join("inspected-by-id");
    let mut command = client(&server.endpoint, home.path());
    command.arg("inspect").arg(photo).args(["--model", ID, "--out"]).arg(&out);
    assert_done(&run(&mut command));
    let mut command = client(&server.endpoint, home.path());
    command.args(["evaluate", "--images", "1", "--model", ID, "--data"]);
    assert_done(&run(command.arg(folder.path().join("shapes"))));
    let mut command = client(&server.endpoint, home.path());
    command.args(["bench", "caption", "--images", "1", "--new-tokens", "2", "--model", ID]);
    assert_done(&run(&mut command));
}

#[test]
fn offline_may_be_said_by_the_environment() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    let offline = |home: &Path| {
        run(client(&server.endpoint, home).env("HF_HUB_OFFLINE", "1").args(["model", "pull", ID]))
    };
    // Whatever the command calls it: --model, init in a config, or a bare argument.
    let words = ["is not in", "model pull tiny/captioner", "the copy in place of tiny/captioner"];
    assert_failed(&offline(home.path()), &words);
    assert_eq!(server.take_requests().len(), 0);
    let pulled = pull(&server, home.path());
    server.take_requests();
    assert_eq!(offline(home.path()).stdout, pulled.stdout);
    assert_eq!(server.take_requests().len(), 0);
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    server.behave(Behaviour { cut: Some((50_000, 1)), ..Behaviour::default() });
    let ended = pull(&server, home.path());
    assert_done(&ended);
    assert!(ended.stderr.contains("trying again in 0.5 s"), "{ended:#?}");
    assert_whole(home.path(), "model.safetensors", &weights());
    let ranges: Vec<Option<String>> = server
        .take_requests()
        .iter()
        .filter(|request| request.is_large)
        .map(|request| request.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [None, Some("bytes=50000-".to_string())]);
}

#[test]
fn a_download_given_up_is_resumed_by_the_next_command() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    server.behave(Behaviour { cut: Some((10_000, usize::MAX)), ..Behaviour::default() });
    let ended = pull(&server, home.path());
    let words = ["model.safetensors: the download broke off at 40000 bytes of 120000", "hint: "];
    assert_failed(&ended, &words);
    let incomplete =
        model_cache(home.path()).join("blobs").join(format!("{}.incomplete", tag(&weights())));
    assert_eq!(fs::read(&incomplete).unwrap(), weights()[..40_000]);
    assert!(!model_cache(home.path()).join("refs/main").exists(), "the model is not here yet");

    server.behave(Behaviour::default());
    server.take_requests();
    assert_done(&pull(&server, home.path()));
    assert_whole(home.path(), "model.safetensors", &weights());
    assert_no_remains(home.path());
    let requests = server.take_requests();
    let large: Vec<&Request> = requests.iter().filter(|request| request.is_large).collect();
    assert_eq!(large.len(), 1);
    assert_eq!(large[0].headers["range"], "bytes=40000-");
    assert_eq!(fetched(&requests), ["model.safetensors"], "the rest is here already");
}

#[test]
fn what_was_here_before_is_used_only_if_it_belongs_to_the_file() {
    for (before, no_ranges) in [
        (vec![0; 30_000], false),
        (vec![0; 130_000], false),
        (weights()[..30_000].to_vec(), true),
        (weights(), false),
    ] {
        let home = tempfile::tempdir().unwrap();
        let server = serve(&files());
        server.behave(Behaviour { no_ranges, ..Behaviour::default() });
        let blobs = model_cache(home.path()).join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", tag(&weights()))), &before).unwrap();
        assert_done(&pull(&server, home.path()));
        assert_whole(home.path(), "model.safetensors", &weights());
        assert_no_remains(home.path());
    }
}

#[test]
fn bytes_that_are_not_what_was_promised_are_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    server.behave(Behaviour { damage: true, ..Behaviour::default() });
    let promised = tag(&weights());
    assert_failed(&pull(&server, home.path()), &["model.safetensors", "SHA-256", &promised]);
    assert_no_remains(home.path());
    assert!(!model_cache(home.path()).join("blobs").join(promised).exists());
}

#[test]
fn the_token_goes_to_the_endpoint_and_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    let ended = run(client(&server.endpoint, home.path())
        .env("HF_TOKEN", "hf_x")
        .args(["model", "pull", ID]));
    assert_done(&ended);
    let requests = server.take_requests();
    assert!(requests.iter().any(|request| request.is_large));
    for request in &requests {
        let sent = request.headers.get("authorization").map(String::as_str);
        assert_eq!(sent, (!request.is_large).then_some("Bearer hf_x"), "{request:?}");
    }
    // The token that Hugging Face's own tools leave counts, too.
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("token"), "hf_file\n").unwrap();
    assert_done(&pull(&server, home.path()));
    assert_eq!(server.take_requests()[0].headers["authorization"], "Bearer hf_file");
}

#[test]
fn revisions_are_kept_apart() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    let pull = |revision: &str| {
        let words = ["model", "pull", ID, "--revision", revision];
        run(client(&server.endpoint, home.path()).args(words))
    };
    assert_done(&pull("refs/pr/1"));
    let cache = model_cache(home.path());
    assert_eq!(fs::read_to_string(cache.join("refs/refs/pr/1")).unwrap(), COMMIT);
    assert!(!cache.join("refs/main").exists());
    assert_failed(&pull("v9"), &["tiny/captioner has no revision `v9`", "hint: --revision takes"]);
    for wrong in ["../x", "a//b", "/a"] {
        let ended = pull(wrong);
        assert_eq!(ended.code, 2, "{ended:#?}");
        assert!(ended.stderr.contains("is no revision"), "{ended:#?}");
    }
    let mut command = client(&server.endpoint, home.path());
    command.args(["caption", "x.png", "--revision", "main", "--model"]).arg(home.path());
    let photo = home.path().join("x.png");
    RgbImage::new(4, 4).save(&photo).unwrap();
    let ended = run(command.current_dir(home.path()));
    assert_eq!(ended.code, 2, "{ended:#?}");
    assert!(ended.stderr.contains("is a folder, which has no revision"), "{ended:#?}");
}

#[test]
fn the_cache_may_be_elsewhere() {
    let home = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let server = serve(&files());
    let mut command = client(&server.endpoint, home.path());
    command.env("HF_HUB_CACHE", elsewhere.path()).args(["model", "pull", ID]);
    assert_done(&run(&mut command));
    let found = elsewhere.path().join("models--tiny--captioner/snapshots").join(COMMIT);
    assert!(found.join("model.safetensors").is_file());
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn who_may_not_have_a_model_is_told_why() {
    let answers: [(u16, &str, &str, &[&str]); 6] = [
        (
            401,
            "RepoNotFound",
            "Repository not found",
            &["has no model tiny/captioner, or hides it", "401: Repository not found", "HF_TOKEN"],
        ),
        (401, "", "", &["has no model tiny/captioner, or hides it", "spelling"]),
        (401, "", "Invalid credentials in Authorization header", &["refuses", "valid token"]),
        (
            403,
            "GatedRepo",
            "Access to model tiny/captioner is restricted.",
            &["tiny/captioner is gated", "HTTP 403", "agree at http://127.0.0.1", "set HF_TOKEN"],
        ),
        (403, "", "", &["refuses to give tiny/captioner", "HTTP 403", "HF_TOKEN"]),
        (404, "", "", &["tiny/captioner (revision main) has no config.json"]),
    ];
    for (status, code, message, words) in answers {
        let home = tempfile::tempdir().unwrap();
        let server = serve(&files());
        server.behave(Behaviour { refuse: Some((status, code, message)), ..Behaviour::default() });
        assert_failed(&pull(&server, home.path()), words);
        assert_eq!(server.take_requests().len(), 1, "{status} is not asked twice");
    }
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    let ended = run(client(&server.endpoint, home.path()).args(["model", "pull", "tiny/other"]));
    assert_failed(&ended, &["has no model tiny/other"]);
    let ended = run(client(&server.endpoint, home.path()).args(["model", "pull", "other"]));
    assert_eq!(ended.code, 2, "{ended:#?}");
}

#[test]
fn a_server_that_fails_is_asked_again_and_then_named() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    server.behave(Behaviour { refuse: Some((500, "", "")), ..Behaviour::default() });
    let ended = pull(&server, home.path());
    assert_failed(&ended, &["/tiny/captioner/resolve/main/config.json", "HTTP 500", "hint: try"]);
    assert_eq!(server.take_requests().len(), 4);
}

#[test]
fn without_a_network_there_is_one_error_that_says_what_can_be_done() {
    let home = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let photo = home.path().join("x.png");
    RgbImage::new(4, 4).save(&photo).unwrap();
    for endpoint in [format!("http://{free}"), "https://no-such-host.invalid".to_string()] {
        let mut command = client(&endpoint, home.path());
        command.arg("caption").arg(&photo).args(["--model", "someone/none"]);
        let words = [
            "someone/none is neither a folder here nor in ",
            endpoint.as_str(),
            "cannot be reached",
            "caused by: ",
            "HTTPS_PROXY",
            "HF_ENDPOINT",
            "`patchword model pull someone/none`",
            "copy that folder",
        ];
        assert_failed(&run(&mut command), &words);
    }
    let mut command = client("mirror", home.path());
    assert_failed(&run(command.args(["model", "pull", ID])), &["HF_ENDPOINT is `mirror`"]);
}

#[test]
fn weights_come_in_shards_or_from_pytorch_too() {
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    let without = |names: &[&str]| -> Vec<(&'static str, Vec<u8>)> {
        files().into_iter().filter(|(name, _)| !names.contains(name)).collect()
    };
    let home = tempfile::tempdir().unwrap();
    let server = serve(&without(&["model.safetensors"]));
    server.put("model.safetensors.index.json", index);
    server.put("model-1.safetensors", &weights());
    assert_failed(&pull(&server, home.path()), &["names model-2.safetensors"]);
    let home = tempfile::tempdir().unwrap();
    server.put("model-2.safetensors", b"small");
    assert_done(&pull(&server, home.path()));
    assert_whole(home.path(), "model-1.safetensors", &weights());
    assert_whole(home.path(), "model-2.safetensors", b"small");

    let home = tempfile::tempdir().unwrap();
    server.put("model.safetensors.index.json", br#"{"weight_map": {"a": "../../x.safetensors"}}"#);
    assert_failed(&pull(&server, home.path()), &["`weight_map` names", "../../x.safetensors"]);

    let home = tempfile::tempdir().unwrap();
    let server = serve(&without(&["model.safetensors", "tokenizer.json"]));
    assert_done(&pull(&server, home.path()));
    assert_whole(home.path(), "pytorch_model.bin", &[1; 50_000]);
    assert_whole(home.path(), "vocab.txt", b"a\nb\n");

    let home = tempfile::tempdir().unwrap();
    let server = serve(&without(&["model.safetensors", "pytorch_model.bin"]));
    assert_failed(&pull(&server, home.path()), &["has no model.safetensors or pytorch_model.bin"]);
}

#[test]
fn what_another_tool_left_in_the_cache_is_used() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    server.stop();
    let folder = model_cache(home.path()).join("snapshots").join(COMMIT);
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(model_cache(home.path()).join("refs")).unwrap();
    fs::write(model_cache(home.path()).join("refs/main"), format!("{COMMIT}\n")).unwrap();
    for (name, bytes) in files().iter().filter(|(name, _)| !name.starts_with("tokenizer")) {
        fs::write(folder.join(name), bytes).unwrap();
    }
    let photo = home.path().join("x.png");
    RgbImage::new(4, 4).save(&photo).unwrap();
    let caption = |more: &[&str]| {
        let mut command = client(&server.endpoint, home.path());
        run(command.arg("caption").arg(&photo).args(["--model", ID]).args(more))
    };
    // The names of these files are those of a model, their contents are not: the reader of the model
    // says so, which it could not if the hub had refused.
    fs::rename(folder.join("vocab.txt"), folder.join("v.txt")).unwrap();
    let ended = caption(&[]);
    assert!(ended.stderr.contains("cannot be reached"), "{ended:#?}");
    assert!(ended.stderr.contains("what the cache has is used"), "{ended:#?}");
    assert_failed(&ended, &["model.safetensors: not a whole safetensors file"]);
    fs::rename(folder.join("v.txt"), folder.join("vocab.txt")).unwrap();
    let ended = caption(&[]);
    assert!(!ended.stderr.contains("cannot be reached"), "nothing is missing: {ended:#?}");
    assert_failed(&ended, &["model.safetensors: not a whole safetensors file"]);
}

#[test]
fn two_processes_at_once_download_once() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    let slow = Some(Duration::from_millis(30));
    server.behave(Behaviour { slow, ..Behaviour::default() });
    let ended: Vec<Ended> = thread::scope(|scope| {
        let pulls: Vec<_> = (0..3).map(|_| scope.spawn(|| pull(&server, home.path()))).collect();
        pulls.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for one in &ended {
        assert_done(one);
        assert_eq!(one.stdout, ended[0].stdout);
    }
    let requests = server.take_requests();
    assert_eq!(requests.iter().filter(|request| request.is_large).count(), 1, "{ended:#?}");
    for (name, bytes) in files() {
        if NEEDED.contains(&name) {
            assert_whole(home.path(), name, &bytes);
        }
    }
    assert_no_remains(home.path());
}

#[test]
fn a_plain_file_server_will_do() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    server.behave(Behaviour { plain: true, ..Behaviour::default() });
    let ended = pull(&server, home.path());
    assert_done(&ended);
    let folder = PathBuf::from(ended.stdout.trim_end());
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), weights());
    // Such a server says nothing of commits: what it has now is what counts.
    server.put("generation_config.json", b"{\"num_beams\": 3}");
    assert_eq!(pull(&server, home.path()).stdout, ended.stdout);
    let config = fs::read_to_string(folder.join("generation_config.json")).unwrap();
    assert_eq!(config, "{\"num_beams\": 3}");
}

fn info(endpoint: &str, home: &Path, words: &[&str]) -> Ended {
    run(client(endpoint, home).args(["model", "info"]).args(words))
}

#[test]
fn info_says_what_a_model_is_without_downloading_its_weights() {
    let Trained { model, .. } = trained();
    let home = tempfile::tempdir().unwrap();
    let server = Server::of_folder(model);
    let card = b"---\nlicense: mit\n---\n# A model\n";
    server.put("README.md", card);
    let nowhere = "http://127.0.0.1:9";

    let local = info(nowhere, home.path(), &[model.to_str().unwrap(), "--json"]);
    assert_done(&local);
    let local: Value = serde_json::from_str(&local.stdout).unwrap();
    assert_eq!(local["family"], "patchword");
    assert_eq!(local["model"]["encoder"]["d_model"], 16);
    assert_eq!(local["tokens"]["bos"], json!({"id": 1, "token": "<bos>"}));
    assert_eq!(local["license"], Value::Null);
    assert_eq!(local["generate"]["max_new_tokens"], 6);
    let in_file = local["weights"]["dtypes"]["F32"].as_u64().unwrap();
    assert_eq!(local["parameters"]["total"].as_u64().unwrap(), in_file, "nothing is tied twice");
    assert_eq!(local["weights"]["bytes"].as_u64().unwrap(), 4 * in_file);

    assert_eq!(info(&server.endpoint, home.path(), &[ID, "--offline"]).code, 1);
    let remote = info(&server.endpoint, home.path(), &[ID, "--json"]);
    assert_done(&remote);
    let remote: Value = serde_json::from_str(&remote.stdout).unwrap();
    let fetched_names = ["README.md", "config.json", "preprocessor.json", "tokenizer.json"];
    assert_eq!(fetched(&server.take_requests()), fetched_names);
    for key in ["model", "parameters", "tokens", "preprocess", "generate"] {
        assert_eq!(remote[key], local[key], "{key}");
    }
    assert_eq!(remote["weights"], Value::Null);
    assert_eq!(remote["license"], "mit");
    let size = fs::metadata(model.join("model.safetensors")).unwrap().len();
    assert_eq!(remote["not_downloaded"], json!([{"name": "model.safetensors", "size": size}]));
    let offline = info(nowhere, home.path(), &[ID, "--offline"]);
    assert_done(&offline);
    assert!(offline.stdout.contains("weights        not here\n"), "{}", offline.stdout);

    assert_done(&pull(&server, home.path()));
    assert_eq!(fetched(&server.take_requests()), ["model.safetensors"]);
    let text = info(nowhere, home.path(), &[ID]);
    assert_done(&text);
    for line in [
        "model          tiny/captioner\n",
        "family         patchword\n",
        "encoder        2 layers, width 16, 2 heads; 2×2 patches of 8×8 on 16×16 pixels\n",
        "weights        F32, ",
        "begin <bos> (1), end <eos> (2), padding <pad> (0)\n",
        "preprocessing  height 16, width 16, resize squash, filter bilinear",
        "decoding       num_beams 1, max_new_tokens 6",
        "licence        mit\n",
        "files          README.md (31 bytes), config.json (",
    ] {
        assert!(text.stdout.contains(line), "{line:?} is not in\n{}", text.stdout);
    }
}

#[test]
fn info_of_what_is_no_model_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let server = serve(&files());
    assert_failed(&info("http://127.0.0.1:9", home.path(), &["./none"]), &["no checkpoint here"]);
    // A config that promises more than it says.
    assert_failed(&info(&server.endpoint, home.path(), &[ID]), &["config.json", "vision_config"]);
    server.put("config.json", br#"{"model_type": "llava"}"#);
    let home = tempfile::tempdir().unwrap();
    let words = ["`model_type` is \"llava\"", "BlipForConditionalGeneration"];
    assert_failed(&info(&server.endpoint, home.path(), &[ID]), &words);
}
