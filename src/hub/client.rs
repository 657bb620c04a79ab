//! HTTP with the Hub: what a file is, and its bytes from any place on.

use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::cache::is_file_name;
use super::{Event, HubError, HubSettings, ModelId};

/// Tries before a server that fails, or a connection that breaks, is given up.
pub(super) const TRIES: u32 = 4;
const MOST_REDIRECTS: usize = 10;

/// What the server says of a file.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    /// Where it was asked for.
    pub url: String,
    /// The commit that the revision stands for; plain servers don't say it.
    pub commit: Option<String>,
    /// The name of its content.
    pub etag: Option<String>,
    /// The SHA-256 of its content, which the Hub says of large files.
    pub sha256: Option<String>,
    /// Its size in bytes.
    pub size: Option<u64>,
}

/// The part of a file that a server sends.
pub(super) struct Part {
    /// The first byte's place in the file.
    pub start: u64,
    /// The file's whole size, if the server says it.
    pub size: Option<u64>,
    /// The bytes.
    pub body: Body,
}

#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    settings: HubSettings,
}

/// An answer after redirects.
struct Answer {
    response: Response<Body>,
    /// Of the first redirect that says it: it knows more than the server of the bytes.
    commit: Option<String>,
    linked_etag: Option<String>,
    linked_size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Method {
    Head,
    /// From a byte on.
    Get(u64),
    /// The first byte only, of a server that doesn't know HEAD.
    Probe,
}

impl Client {
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let roots = match &settings.certificates {
            None => RootCerts::WebPki,
            Some(file) => {
                let wrong =
                    |problem: String| HubError::Certificates { file: file.clone(), problem };
                let pem = fs::read(file).map_err(|error| wrong(error.to_string()))?;
                let items: Result<Vec<PemItem>, _> = parse_pem(&pem).collect();
                let items = items.map_err(|error| wrong(error.to_string()))?;
                let certificates: Vec<Certificate> = items
                    .into_iter()
                    .filter_map(|item| match item {
                        PemItem::Certificate(certificate) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                if certificates.is_empty() {
                    return Err(wrong("none was found".into()));
                }
                RootCerts::new_with_certs(&certificates)
            }
        };
        // Redirects are followed here, where it is known who may see the token.
        let config = Agent::config_builder()
            .user_agent(concat!("patchword/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_resolve(Some(settings.patience))
            .timeout_connect(Some(settings.patience))
            .timeout_recv_response(Some(2 * settings.patience))
            .timeout_per_read(Some(2 * settings.patience))
            .build();
        Ok(Self { agent: config.into(), settings })
    }

    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// Asks for a file of a model; nothing if there is no such file.
    pub fn metadata(
        &self,
        id: &ModelId,
        revision: &str,
        file: &str,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Option<Metadata>, HubError> {
        let url = format!(
            "{}/{id}/resolve/{}/{}",
            self.settings.endpoint,
            percent_encoded(revision),
            percent_encoded(file)
        );
        let mut answer = self.patiently(id, &url, Method::Head, on_event)?;
        if [405, 501].contains(&answer.response.status().as_u16()) {
            answer = self.patiently(id, &url, Method::Probe, on_event)?;
        }
        let (status, headers) = (answer.response.status().as_u16(), answer.response.headers());
        let said = said(headers);
        let code = text(headers, "x-error-code").unwrap_or_default();
        let id = id.to_string();
        let endpoint = self.settings.endpoint.clone();
        let has_token = self.settings.token.is_some();
        let who = if has_token { "this token" } else { "those without a token" };
        match (status, code) {
            (200..=399, _) => {}
            (401 | 403, "GatedRepo") => {
                return Err(HubError::Gated { id, endpoint, status, has_token, said });
            }
            (401 | 404, "RepoNotFound") => {
                return Err(HubError::NoModel { id, endpoint, status, who, said });
            }
            // The Hub says this of models that don't exist, too, unless the token itself is bad.
            (401, _) if !said.contains("Invalid credentials") => {
                return Err(HubError::NoModel { id, endpoint, status, who, said });
            }
            (401 | 403, _) => {
                return Err(HubError::Refused { id, endpoint, status, who, said });
            }
            (404, "RevisionNotFound") => {
                return Err(HubError::NoRevision { id, revision: revision.into() });
            }
            (404, _) => return Ok(None),
            _ => return Err(HubError::Server { url, status, said }),
        }
        let is_redirect = (300..=399).contains(&status);
        let sha256 = answer
            .linked_etag
            .clone()
            .filter(|etag| etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit()));
        let own_etag = || if is_redirect { None } else { etag(headers, "etag") };
        let etag = answer.linked_etag.clone().or_else(own_etag);
        let own_size = || match range(headers) {
            Some((_, size)) => size,
            None => number(headers, "content-length"),
        };
        let size = answer.linked_size.or_else(|| if is_redirect { None } else { own_size() });
        Ok(Some(Metadata { url, commit: answer.commit, etag, sha256, size }))
    }

    /// The bytes of a file from `start` on, or all of them if the server cannot start there.
    pub fn part(&self, url: &str, start: u64) -> io::Result<Result<Part, HubError>> {
        let answer = self.send(url, Method::Get(start)).map_err(ureq::Error::into_io)?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        let headers = answer.response.headers();
        let (start, size) = match answer.response.status().as_u16() {
            200 => (0, number(headers, "content-length")),
            206 => match range(headers) {
                Some((from, size)) => (from, size),
                None => return Err(io::Error::other("a part of the file without its place in it")),
            },
            status if is_passing(status) => {
                let said = said(headers);
                return Err(io::Error::other(format!("HTTP {status}{said}")));
            }
            status => {
                let (url, said) = (url.into(), said(headers));
                return Ok(Err(HubError::Server { url, status, said }));
            }
        };
        Ok(Ok(Part { start, size, body: answer.response.into_body() }))
    }

    /// Asks again while the server says that it fails for now.
    fn patiently(
        &self,
        id: &ModelId,
        url: &str,
        method: Method,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<Answer, HubError> {
        let mut pause = self.settings.pause;
        for tries in 1.. {
            let last = tries >= TRIES;
            let reason = match self.send(url, method) {
                Ok(answer) => {
                    let answer = answer?;
                    let status = answer.response.status().as_u16();
                    if last || !is_passing(status) {
                        return Ok(answer);
                    }
                    format!("HTTP {status}")
                }
                Err(error) if last || !is_broken(&error) => {
                    return Err(HubError::Unreachable {
                        id: id.to_string(),
                        endpoint: self.settings.endpoint.clone(),
                        cache: self.settings.cache.clone(),
                        source: Box::new(error),
                    });
                }
                Err(error) => error.to_string(),
            };
            self.rest(&mut pause, &reason, on_event);
        }
        Err(HubError::Answer { url: url.into(), problem: "no answer".into() })
    }

    /// Waits before the next try.
    pub fn rest(&self, pause: &mut Duration, reason: &str, on_event: &mut dyn FnMut(Event<'_>)) {
        on_event(Event::Retry { reason, pause: *pause });
        thread::sleep(*pause);
        *pause *= 2;
    }

    /// One request with its redirects. HEAD stops where the Hub names another server for the bytes: its
    /// own answer has said all, and better.
    fn send(&self, url: &str, method: Method) -> Result<Result<Answer, HubError>, ureq::Error> {
        let mut url = url.to_string();
        let (mut commit, mut linked_etag, mut linked_size) = (None, None, None);
        for _ in 0..=MOST_REDIRECTS {
            let mut request = match method {
                Method::Head => self.agent.head(&url),
                Method::Get(_) | Method::Probe => self.agent.get(&url),
            };
            request = match method {
                Method::Get(start @ 1..) => request.header("Range", format!("bytes={start}-")),
                Method::Probe => request.header("Range", "bytes=0-0"),
                _ => request,
            };
            if let Some(token) = &self.settings.token
                && origin(&url) == origin(&self.settings.endpoint)
            {
                request = request.header("Authorization", format!("Bearer {}", token.secret()));
            }
            let response = request.call()?;
            let headers = response.headers();
            let name = |name| text(headers, name).filter(|text| is_file_name(text));
            commit = commit.or_else(|| name("x-repo-commit").map(str::to_string));
            linked_etag = linked_etag.or_else(|| etag(headers, "x-linked-etag"));
            linked_size = linked_size.or_else(|| number(headers, "x-linked-size"));
            let target = text(headers, "location")
                .filter(|_| [301, 302, 303, 307, 308].contains(&response.status().as_u16()));
            let target = target.map(|location| joined(&url, location));
            let is_known = commit.is_some() || linked_etag.is_some();
            let elsewhere = |target: &String| origin(target) != origin(&url);
            match target {
                Some(target) if !(method == Method::Head && elsewhere(&target) && is_known) => {
                    if url.starts_with("https://") && !target.starts_with("https://") {
                        let problem = "redirects to a server without encryption".into();
                        return Ok(Err(HubError::Answer { url, problem }));
                    }
                    url = target;
                }
                _ => return Ok(Ok(Answer { response, commit, linked_etag, linked_size })),
            }
        }
        Ok(Err(HubError::Answer { url, problem: "redirects without end".into() }))
    }
}

/// Whether it is worth asking again.
fn is_passing(status: u16) -> bool {
    [408, 429, 500, 502, 503, 504].contains(&status)
}

/// Whether a connection that was there broke: no name, no route and no answer in time are final.
fn is_broken(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let broken = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    matches!(error, ureq::Error::Io(error) if broken.contains(&error.kind()))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name).and_then(|value| value.trim().parse().ok())
}

/// An entity tag as a file name: without quotes and `W/`.
fn etag(headers: &HeaderMap, name: &str) -> Option<String> {
    let tag = text(headers, name)?.trim();
    let tag = tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"');
    is_file_name(tag).then(|| tag.to_string())
}

/// First byte and whole size of `Content-Range: bytes 5-9/10`.
fn range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (places, size) = text(headers, "content-range")?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = places.split_once('-')?;
    Some((first.trim().parse().ok()?, size.trim().parse().ok()))
}

/// The server's own words on what is wrong, to be put behind a status.
fn said(headers: &HeaderMap) -> String {
    match text(headers, "x-error-message") {
        Some(words) if !words.trim().is_empty() => {
            let words: String = words.trim().trim_end_matches('.').chars().take(200).collect();
            format!(": {words}")
        }
        _ => String::new(),
    }
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |place| place + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |place| host + place);
    &url[..end]
}

/// The URL that `location` means on the page `url`.
fn joined(url: &str, location: &str) -> String {
    if location.contains("://") {
        location.into()
    } else if location.starts_with("//") {
        format!("{}:{location}", url.split("://").next().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin(url))
    } else {
        let path = url.split(['?', '#']).next().unwrap_or(url);
        let folder = path.rfind('/').map_or(path, |slash| &path[..slash]);
        format!("{folder}/{location}")
    }
}

/// `text` with all but letters, digits and `-._~` written as `%XX`.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined_as_browsers_do() {
        let url = "https://hub:8/a/b?c=d/e";
        for (location, expected) in [
            ("https://cdn/x", "https://cdn/x"),
            ("//cdn/x", "https://cdn/x"),
            ("/x?y", "https://hub:8/x?y"),
            ("x", "https://hub:8/a/x"),
        ] {
            assert_eq!(joined(url, location), expected);
        }
        assert_eq!(origin("https://hub:8?x"), "https://hub:8");
        assert_ne!(origin("https://hub.evil/x"), origin("https://hub/x"));
    }

    #[test]
    fn names_from_a_server_cannot_leave_the_cache() {
        let headers = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            headers
        };
        let tag = |value: &str| etag(&headers("etag", value), "etag");
        assert_eq!(tag("W/\"abc-1\"").as_deref(), Some("abc-1"));
        for wrong in ["\"../../x\"", "\"..\"", "\"\"", "\"a/b\"", "\"a\\b\"", "\".hidden\""] {
            assert_eq!(tag(wrong), None, "{wrong}");
        }
        let range_of = |value: &str| range(&headers("content-range", value));
        assert_eq!(range_of("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range_of("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range_of("bytes */10"), None);
        assert_eq!(percent_encoded("refs/pr/1 é"), "refs%2Fpr%2F1%20%C3%A9");
    }
}
