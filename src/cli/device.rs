//! `--device`, for every command that computes.

use clap::Args;

use super::console::Console;
use super::error::CliError;
use crate::device::{DeviceRequest, Resolved, resolve};

/// The device to compute on: flatten it into the arguments of a command.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// Compute on this device: auto, flex (CPU), wgpu, wgpu:N as `patchword devices` counts, and
    /// vulkan, metal, cuda in builds that have them.
    #[arg(
        long,
        value_name = "DEVICE",
        env = "PATCHWORD_DEVICE",
        default_value = "auto",
        value_parser = parse_request
    )]
    pub device: DeviceRequest,
}

impl DeviceArgs {
    /// Opens the device and says on stderr which it is and why.
    ///
    /// # Errors
    /// What [`resolve`] reports, with its hint.
    pub fn open(&self, console: &Console) -> Result<Resolved, CliError> {
        let resolved = resolve(&self.device)?;
        console.note(format_args!("device: {}: {}", resolved.name, resolved.reason));
        Ok(resolved)
    }
}

/// Parses a device for clap, which prints an error of ours below one of its own. An empty text, as
/// from an empty environment variable, is `auto`.
pub(super) fn parse_request(text: &str) -> Result<DeviceRequest, String> {
    if text.is_empty() {
        return Ok(DeviceRequest::Auto);
    }
    text.parse::<DeviceRequest>().map_err(|error| match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_with_hints() {
        assert_eq!(parse_request(""), Ok(DeviceRequest::Auto));
        assert_eq!(parse_request("flex"), Ok(DeviceRequest::Flex));
        let message = parse_request("atuo").unwrap_err();
        assert!(message.ends_with("hint: did you mean `auto`?"), "{message}");
    }

    #[test]
    fn opening_flex_works() {
        let arguments = DeviceArgs { device: DeviceRequest::Flex };
        let resolved = arguments.open(&Console::silent()).unwrap();
        assert!(resolved.name.starts_with("flex"));
    }
}
