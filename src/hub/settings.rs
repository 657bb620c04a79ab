//! What the environment says about the Hub, under the names that Hugging Face's own tools read.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::HubError;

/// A secret that no message shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token without the white space around it; none if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.into()))
    }

    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where models come from and where they go.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// The server, `https://huggingface.co` or a mirror, without a slash at its end.
    pub endpoint: String,
    /// The cache: the folder that holds `models--owner--name`.
    pub cache: PathBuf,
    /// Sent to the endpoint, and to no other server.
    pub token: Option<Token>,
    /// Whether the network must not be used.
    pub offline: bool,
    /// Certificates in PEM to trust instead of the built-in ones (Mozilla's).
    pub certificates: Option<PathBuf>,
    /// Longest time to connect, and longest silence of a connected server.
    pub patience: Duration,
    /// The first pause before a broken download is tried again; each further one is twice as long.
    pub pause: Duration,
}

impl HubSettings {
    /// The Hub itself with a cache, no token and the usual times.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            cache,
            token: None,
            offline: false,
            certificates: None,
            patience: Duration::from_secs(15),
            pause: Duration::from_millis(500),
        }
    }

    /// Reads `HF_ENDPOINT`; `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`; `HF_TOKEN`, `HF_TOKEN_PATH`
    /// or the token that `hf auth login` left; `HF_HUB_OFFLINE`; `SSL_CERT_FILE`,
    /// `REQUESTS_CA_BUNDLE`. Proxies are read by the client itself (`HTTPS_PROXY`, `ALL_PROXY`,
    /// `NO_PROXY`).
    ///
    /// # Errors
    /// An endpoint that is no URL, or no place for the cache.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::from_variables(&|name| env::var(name).ok(), env::home_dir().as_deref())
    }

    fn from_variables(
        variable: &dyn Fn(&str) -> Option<String>,
        user: Option<&Path>,
    ) -> Result<Self, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_on = |name: &str| {
            let value = set(name).unwrap_or_default().trim().to_uppercase();
            ["1", "ON", "YES", "TRUE"].contains(&value.as_str())
        };
        let path = |name: &str| {
            set(name).map(|value| match (value.strip_prefix("~/"), user) {
                (Some(below), Some(user)) => user.join(below),
                _ => PathBuf::from(value),
            })
        };
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| user.map(|user| user.join(".cache").join("huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| home.as_ref().map(|home| home.join("hub")))
            .ok_or(HubError::NoCache)?;
        let mut settings = Self::new(cache);
        if let Some(endpoint) = set("HF_ENDPOINT") {
            let trimmed = endpoint.trim().trim_end_matches('/');
            let host = trimmed
                .split_once("://")
                .filter(|(scheme, host)| ["http", "https"].contains(scheme) && !host.is_empty());
            if host.is_none() || trimmed.contains([' ', '?', '#']) {
                return Err(HubError::Endpoint { value: endpoint });
            }
            settings.endpoint = trimmed.into();
        }
        let token_file =
            path("HF_TOKEN_PATH").or_else(|| home.as_ref().map(|home| home.join("token")));
        let stored = || fs::read_to_string(token_file?).ok();
        settings.token = set("HF_TOKEN")
            .or_else(|| set("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { stored() })
            .and_then(|token| Token::new(&token));
        settings.offline = is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE");
        settings.certificates = path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE"));
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<HubSettings, HubError> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_string())
        };
        HubSettings::from_variables(&find, Some(Path::new("/home/me")))
    }

    #[test]
    fn the_cache_is_where_the_other_tools_have_it() {
        let cache = |variables: &[(&str, &str)]| read(variables).unwrap().cache;
        assert_eq!(cache(&[]), Path::new("/home/me/.cache/huggingface/hub"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
        let home = ("HF_HOME", "~/hf");
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/x")]), Path::new("/home/me/hf/hub"));
        assert_eq!(cache(&[home, ("HF_HUB_CACHE", "/models")]), Path::new("/models"));
        assert_eq!(cache(&[("HF_HOME", " ")]), Path::new("/home/me/.cache/huggingface/hub"));
        let nowhere = HubSettings::from_variables(&|_| None, None);
        assert!(matches!(nowhere, Err(HubError::NoCache)), "{nowhere:?}");
    }

    #[test]
    fn the_endpoint_is_a_url() {
        let endpoint = |value| read(&[("HF_ENDPOINT", value)]).map(|settings| settings.endpoint);
        assert_eq!(endpoint("http://mirror:8080/hf/").unwrap(), "http://mirror:8080/hf");
        assert_eq!(read(&[]).unwrap().endpoint, "https://huggingface.co");
        for wrong in ["mirror", "ftp://mirror", "https://", "https://a b"] {
            assert!(endpoint(wrong).unwrap_err().to_string().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_token_comes_from_the_environment_or_the_file_and_is_never_shown() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", home.path().to_str().unwrap());
        let token = |variables: &[(&str, &str)]| read(variables).unwrap().token;
        assert_eq!(token(&[home]), Token::new("hf_file"));
        assert_eq!(token(&[home, ("HF_TOKEN", " hf_env ")]), Token::new("hf_env"));
        assert_eq!(token(&[home, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let shown = format!("{:?}", read(&[("HF_TOKEN", "hf_secret")]).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn offline_is_said_in_the_usual_ways() {
        for (value, offline) in
            [("1", true), ("true", true), ("ON", true), ("0", false), ("", false)]
        {
            assert_eq!(read(&[("HF_HUB_OFFLINE", value)]).unwrap().offline, offline, "{value}");
        }
        assert!(read(&[("TRANSFORMERS_OFFLINE", "yes")]).unwrap().offline);
    }
}
