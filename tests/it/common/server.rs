//! A small server that speaks as the Hugging Face Hub does: large files lie on a second host, to which
//! the first one redirects.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use ring::digest::{SHA256, digest};

/// The model that is served.
pub const ID: &str = "tiny/captioner";
/// The commit that `main` stands for.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a client asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Under lower-case names.
    pub headers: BTreeMap<String, String>,
    /// Whether it went to the host of the large files.
    pub is_large: bool,
}

impl Request {
    /// The file's name, for GET requests of bytes.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// How the server behaves; all that is left out, as it should.
#[derive(Debug, Clone, Default)]
pub struct Behaviour {
    /// Break the connection after so many bytes of a large file, so many times.
    pub cut: Option<(usize, usize)>,
    /// Answer everything with this status, `X-Error-Code` and `X-Error-Message`.
    pub refuse: Option<(u16, &'static str, &'static str)>,
    /// Send whole files only.
    pub no_ranges: bool,
    /// Know no HEAD, no commits and no tags, and keep large files with the rest.
    pub plain: bool,
    /// Send other bytes of large files than the tag promises.
    pub damage: bool,
    /// Wait before each piece of a large file.
    pub slow: Option<Duration>,
}

#[derive(Debug, Default)]
struct State {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    requests: Mutex<Vec<Request>>,
    behaviour: Mutex<Behaviour>,
    large_host: Mutex<String>,
}

/// It serves until the test's process ends, or until [`Server::stop`].
pub struct Server {
    /// What `HF_ENDPOINT` has to be.
    pub endpoint: String,
    state: Arc<State>,
    stopped: Arc<Mutex<bool>>,
}

/// Files of this size and more are large.
const LARGE: usize = 20_000;

impl Server {
    pub fn start(files: &[(&str, &[u8])]) -> Self {
        let state = Arc::new(State::default());
        for (name, bytes) in files {
            lock(&state.files).insert((*name).to_string(), bytes.to_vec());
        }
        let stopped = Arc::new(Mutex::new(false));
        let endpoint = listen(&state, &stopped, false);
        *lock(&state.large_host) = listen(&state, &stopped, true);
        Self { endpoint, state, stopped }
    }

    /// Serves the files of a folder.
    pub fn of_folder(folder: &Path) -> Self {
        let files = super::snapshot(folder);
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        Self::start(&files)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *lock(&self.state.behaviour) = behaviour;
    }

    pub fn put(&self, name: &str, bytes: &[u8]) {
        lock(&self.state.files).insert(name.into(), bytes.to_vec());
    }

    /// What was asked for since this was last called.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut *lock(&self.state.requests))
    }

    /// From now on every connection is closed without an answer.
    pub fn stop(&self) {
        *lock(&self.stopped) = true;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("the server's state")
}

fn listen(state: &Arc<State>, stopped: &Arc<Mutex<bool>>, is_large: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (state, stopped) = (Arc::clone(state), Arc::clone(stopped));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if *lock(&stopped) {
                continue;
            }
            let state = Arc::clone(&state);
            // A client that goes away is no fault of the server's.
            thread::spawn(move || drop(answer(&state, stream, is_large)));
        }
    });
    format!("http://{address}")
}

fn answer(state: &State, mut stream: TcpStream, is_large: bool) -> std::io::Result<()> {
    let Some(request) = read(&stream, is_large)? else { return Ok(()) };
    lock(&state.requests).push(request.clone());
    let behaviour = lock(&state.behaviour).clone();
    let mut headers: Vec<(&str, String)> = vec![("Connection", "close".into())];
    if let Some((status, code, message)) = behaviour.refuse {
        for (name, value) in [("X-Error-Code", code), ("X-Error-Message", message)] {
            if !value.is_empty() {
                headers.push((name, value.into()));
            }
        }
        return send(&mut stream, status, &headers, &[]);
    }
    let is_head = request.method == "HEAD";
    if behaviour.plain && is_head {
        return send(&mut stream, 501, &headers, &[]);
    }
    let (revision, name) = match request.path.strip_prefix(&format!("/{ID}/resolve/")) {
        Some(rest) => rest.split_once('/').unwrap_or_default(),
        None if is_large => (COMMIT, request.name()),
        None => {
            headers.push(("X-Error-Code", "RepoNotFound".into()));
            return send(&mut stream, 401, &headers, &[]);
        }
    };
    if ![COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision) {
        headers.push(("X-Error-Code", "RevisionNotFound".into()));
        return send(&mut stream, 404, &headers, &[]);
    }
    if !behaviour.plain {
        headers.push(("X-Repo-Commit", COMMIT.into()));
    }
    let Some(mut bytes) = lock(&state.files).get(name).cloned() else {
        headers.push(("X-Error-Code", "EntryNotFound".into()));
        return send(&mut stream, 404, &headers, &[]);
    };
    let tag = tag(&bytes);
    if bytes.len() >= LARGE && !is_large && !behaviour.plain {
        let host = lock(&state.large_host).clone();
        headers.push(("X-Linked-Etag", format!("\"{tag}\"")));
        headers.push(("X-Linked-Size", bytes.len().to_string()));
        headers.push(("Location", format!("{host}/bytes/{name}")));
        return send(&mut stream, 302, &headers, &[]);
    }
    if !behaviour.plain {
        // The host of the bytes has tags of its own.
        headers.push(("ETag", if is_large { "\"other\"".into() } else { format!("W/\"{tag}\"") }));
    }
    if is_large && behaviour.damage {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    let start = request.headers.get("range").filter(|_| !behaviour.no_ranges);
    let start =
        start.and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let start: usize = start.unwrap_or(0);
    let mut status = 200;
    if request.headers.contains_key("range") && !behaviour.no_ranges {
        status = 206;
        if start >= bytes.len() {
            return send(&mut stream, 416, &headers, &[]);
        }
        let (last, size) = (bytes.len() - 1, bytes.len());
        headers.push(("Content-Range", format!("bytes {start}-{last}/{size}")));
    }
    let body = &bytes[start..];
    headers.push(("Content-Length", body.len().to_string()));
    send(&mut stream, status, &headers, &[])?;
    if is_head {
        return Ok(());
    }
    if is_large && let Some((after, times @ 1..)) = behaviour.cut {
        lock(&state.behaviour).cut = Some((after, times - 1));
        stream.write_all(&body[..after.min(body.len())])?;
        return stream.flush();
    }
    for piece in body.chunks(4096) {
        if is_large && let Some(pause) = behaviour.slow {
            thread::sleep(pause);
        }
        stream.write_all(piece)?;
    }
    stream.flush()
}

fn read(stream: &TcpStream, is_large: bool) -> std::io::Result<Option<Request>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(None) };
    let mut words = first.split(' ').map(str::to_string);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    Ok(Some(Request { method, path, headers, is_large }))
}

fn send(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&str, String)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} so\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    stream.write_all(text.as_bytes())?;
    stream.write_all(b"\r\n")?;
    stream.write_all(body)
}

/// The SHA-256 of `bytes`, the tag of every file here.
pub fn tag(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
