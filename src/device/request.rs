//! Devices by name, and what can be wrong with a name.

use std::fmt;
use std::str::FromStr;

use super::Adapter;

/// A device as a user names it: `auto`, `flex` (or `cpu`), `wgpu`, `vulkan`, `metal`, `cuda`, the
/// last four optionally with a number, as in `wgpu:1`.
///
/// The number of `wgpu`, `vulkan` and `metal` is [`Adapter::index`]; that of `cuda` is CUDA's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DeviceRequest {
    /// A real GPU where there is one, else [`DeviceRequest::Flex`].
    #[default]
    Auto,
    /// Burn's own CPU backend.
    Flex,
    /// Any adapter wgpu reaches: the best one, or the one with this [`Adapter::index`].
    Wgpu(Option<usize>),
    /// As [`DeviceRequest::Wgpu`], among Vulkan's adapters (Cargo feature `vulkan`).
    Vulkan(Option<usize>),
    /// As [`DeviceRequest::Wgpu`], among Metal's adapters (Cargo feature `metal`).
    Metal(Option<usize>),
    /// A CUDA device, the first when no number is given (Cargo feature `cuda`).
    Cuda(Option<usize>),
}

impl DeviceRequest {
    /// The names this build accepts, in the order worth listing them.
    pub fn names() -> Vec<&'static str> {
        let all = [
            ("auto", true),
            ("flex", true),
            ("wgpu", cfg!(feature = "wgpu")),
            ("wgpu:N", cfg!(feature = "wgpu")),
            ("vulkan", cfg!(feature = "vulkan")),
            ("metal", cfg!(feature = "metal")),
            ("cuda", cfg!(feature = "cuda")),
        ];
        all.into_iter().filter(|(_, present)| *present).map(|(name, _)| name).collect()
    }

    /// The Cargo feature this request needs and this build lacks.
    fn missing_feature(&self) -> Option<&'static str> {
        let (feature, present) = match self {
            Self::Auto | Self::Flex => return None,
            Self::Wgpu(_) => ("wgpu", cfg!(feature = "wgpu")),
            Self::Vulkan(_) => ("vulkan", cfg!(feature = "vulkan")),
            Self::Metal(_) => ("metal", cfg!(feature = "metal")),
            Self::Cuda(_) => ("cuda", cfg!(feature = "cuda")),
        };
        (!present).then_some(feature)
    }

    pub(super) fn check_compiled(&self) -> Result<(), DeviceError> {
        match self.missing_feature() {
            Some(feature) => Err(DeviceError::NotCompiled { request: *self, feature }),
            None => Ok(()),
        }
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, index) = match self {
            Self::Auto => ("auto", &None),
            Self::Flex => ("flex", &None),
            Self::Wgpu(index) => ("wgpu", index),
            Self::Vulkan(index) => ("vulkan", index),
            Self::Metal(index) => ("metal", index),
            Self::Cuda(index) => ("cuda", index),
        };
        match index {
            Some(index) => write!(formatter, "{name}:{index}"),
            None => formatter.write_str(name),
        }
    }
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    /// Parses a name, whatever its case. A name of a device that this build was made without is
    /// [`DeviceError::NotCompiled`].
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let lower = text.trim().to_ascii_lowercase();
        let (name, number) = match lower.split_once(':') {
            Some((name, number)) => (name, Some(number)),
            None => (lower.as_str(), None),
        };
        let index = match number {
            None => None,
            Some(digits) => {
                Some(digits.parse().map_err(|_| DeviceError::BadIndex { text: text.to_string() })?)
            }
        };
        let request = match name {
            "auto" => Self::Auto,
            "flex" | "cpu" => Self::Flex,
            "wgpu" => Self::Wgpu(index),
            "vulkan" => Self::Vulkan(index),
            "metal" => Self::Metal(index),
            "cuda" => Self::Cuda(index),
            _ => return Err(DeviceError::Unknown { text: text.to_string() }),
        };
        if index.is_some() && matches!(request, Self::Auto | Self::Flex) {
            return Err(DeviceError::UnexpectedIndex { text: text.to_string() });
        }
        request.check_compiled()?;
        Ok(request)
    }
}

/// Why a device cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name means nothing.
    #[error("unknown device `{text}`: this build has {}", DeviceRequest::names().join(", "))]
    Unknown {
        /// What was asked for.
        text: String,
    },
    /// What follows the colon is not a number.
    #[error("`{text}` does not end in an adapter number: expected something like `wgpu:0`")]
    BadIndex {
        /// What was asked for.
        text: String,
    },
    /// A number after a name that takes none.
    #[error("`{text}` has a number, but `auto` and `flex` take none")]
    UnexpectedIndex {
        /// What was asked for.
        text: String,
    },
    /// The program was built without this device.
    #[error("`{request}` needs the Cargo feature `{feature}`, which this build was made without")]
    NotCompiled {
        /// What was asked for.
        request: DeviceRequest,
        /// The Cargo feature to build with.
        feature: &'static str,
    },
    /// Nothing on this machine answers to the request.
    #[error("no adapter for `{request}` on this machine")]
    NoAdapter {
        /// What was asked for.
        request: DeviceRequest,
    },
    /// The number is beyond the list of adapters.
    #[error("there is no `{request}`: this machine has {}", count_of_adapters(*.found))]
    NoSuchAdapter {
        /// What was asked for.
        request: DeviceRequest,
        /// How many there are.
        found: usize,
    },
    /// The adapter with that number is reached through another graphics API.
    #[error("`{request}` does not exist: adapter {index} is {name}", index = .adapter.index, name = .adapter)]
    WrongApi {
        /// What was asked for.
        request: DeviceRequest,
        /// The adapter with that number.
        adapter: Adapter,
    },
    /// The adapter exists, but Burn cannot compute on it.
    #[error("adapter {index} ({adapter}) cannot be used: {why}", index = .adapter.index)]
    Unusable {
        /// The adapter.
        adapter: Adapter,
        /// What it lacks.
        why: &'static str,
    },
    /// The driver refused.
    #[error("adapter {index} ({adapter}) could not be opened", index = .adapter.index)]
    Open {
        /// The adapter.
        adapter: Adapter,
        /// What the driver or Burn said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl DeviceError {
    /// What the user can do about it, as one sentence.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unknown { text } => {
                let closest = closest_name(text)?;
                return Some(format!("did you mean `{closest}`?"));
            }
            Self::NotCompiled { feature, .. } => {
                return Some(format!("build it with `cargo build --release --features {feature}`"));
            }
            Self::NoAdapter { request: DeviceRequest::Cuda(_) } => {
                "CUDA needs an NVIDIA GPU with its driver; `--device auto` takes what there is"
            }
            Self::NoAdapter { .. } if cfg!(target_os = "linux") => {
                "install your GPU's Vulkan driver and `libvulkan1` (`mesa-vulkan-drivers` also \
                 brings a software one), or use `--device flex`"
            }
            Self::NoAdapter { .. } => "install your GPU's driver, or use `--device flex`",
            Self::BadIndex { .. } | Self::NoSuchAdapter { .. } | Self::WrongApi { .. } => {
                "`patchword devices` lists the adapters with their numbers"
            }
            Self::UnexpectedIndex { .. } => "write `auto` or `flex` alone",
            Self::Unusable { .. } | Self::Open { .. } => {
                "take another adapter of `patchword devices`, or use `--device flex`"
            }
        };
        Some(hint.to_string())
    }
}

fn count_of_adapters(found: usize) -> String {
    match found {
        0 => "no adapters".to_string(),
        1 => "one adapter, number 0".to_string(),
        _ => format!("{found} adapters, numbers 0 to {}", found - 1),
    }
}

fn closest_name(text: &str) -> Option<&'static str> {
    let lower = text.trim().to_ascii_lowercase();
    DeviceRequest::names()
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, name), name))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let mut requests = vec![DeviceRequest::Auto, DeviceRequest::Flex];
        if cfg!(feature = "wgpu") {
            requests.extend([DeviceRequest::Wgpu(None), DeviceRequest::Wgpu(Some(12))]);
        }
        for request in requests {
            assert_eq!(request.to_string().parse::<DeviceRequest>().unwrap(), request);
        }
        assert_eq!("cpu".parse::<DeviceRequest>().unwrap(), DeviceRequest::Flex);
        assert_eq!(" Auto ".parse::<DeviceRequest>().unwrap(), DeviceRequest::Auto);
    }

    #[test]
    fn a_name_this_build_lacks_says_which_feature_to_build_with() {
        for name in ["wgpu", "vulkan", "metal", "cuda"] {
            match name.parse::<DeviceRequest>() {
                Ok(_) => assert!(DeviceRequest::names().contains(&name)),
                Err(error) => {
                    assert!(!DeviceRequest::names().contains(&name));
                    assert!(
                        matches!(error, DeviceError::NotCompiled { feature, .. } if feature == name)
                    );
                    assert!(error.hint().unwrap().contains(&format!("--features {name}")));
                }
            }
        }
    }

    #[test]
    fn a_wrong_name_lists_the_right_ones_and_guesses() {
        let error = "flx".parse::<DeviceRequest>().unwrap_err();
        assert!(error.to_string().contains("unknown device `flx`: this build has auto, flex"));
        assert_eq!(error.hint().unwrap(), "did you mean `flex`?");
        assert!("gpu0".parse::<DeviceRequest>().unwrap_err().to_string().contains("gpu0"));
        for (text, part) in [("wgpu:x", "adapter number"), ("wgpu:", "adapter number")] {
            assert!(text.parse::<DeviceRequest>().unwrap_err().to_string().contains(part));
        }
        let error = "flex:1".parse::<DeviceRequest>().unwrap_err();
        assert!(matches!(error, DeviceError::UnexpectedIndex { .. }));
    }
}
