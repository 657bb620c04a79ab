//! `--device`, for every command that computes.

use clap::Args;

use super::console::Console;
use super::error::CliError;
use crate::device::{DeviceRequest, Resolved, all_gpus, resolve};

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

/// Devices that share the work: flatten it into the arguments of a command that can use several.
#[derive(Debug, Clone, Args)]
pub struct DevicesArgs {
    /// Compute on this device: auto, flex (CPU), wgpu, wgpu:N as `patchword devices` counts, and
    /// vulkan, metal, cuda in builds that have them; all for every GPU, or several with commas between.
    #[arg(
        long,
        value_name = "DEVICE",
        env = "PATCHWORD_DEVICE",
        default_value = "auto",
        value_parser = parse_requests
    )]
    device: Requests,
}

/// Devices by name; none named: every GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requests(Vec<DeviceRequest>);

impl DevicesArgs {
    /// Opens the devices, at least one, and says on stderr which they are and why.
    ///
    /// # Errors
    /// What [`resolve`] reports, with its hint.
    pub fn open(&self, console: &Console) -> Result<Vec<Resolved>, CliError> {
        let Requests(named) = &self.device;
        let requests = if named.is_empty() { all_gpus() } else { named.clone() };
        let each = requests.iter().map(|request| {
            let resolved = resolve(request)?;
            console.note(format_args!("device: {}: {}", resolved.name, resolved.reason));
            Ok(resolved)
        });
        each.collect()
    }
}

fn parse_requests(text: &str) -> Result<Requests, String> {
    if text.trim() == "all" {
        return Ok(Requests(Vec::new()));
    }
    text.split(',').map(|name| parse_request(name.trim())).collect::<Result<_, _>>().map(Requests)
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
    fn several_devices_are_named_with_commas() {
        let flex = DeviceRequest::Flex;
        assert_eq!(parse_requests("flex, flex"), Ok(Requests(vec![flex, flex])));
        assert_eq!(parse_requests("all"), Ok(Requests(Vec::new())));
        assert_eq!(parse_requests(""), Ok(Requests(vec![DeviceRequest::Auto])));
        assert!(parse_requests("flex,gpu9").is_err());
    }

    #[test]
    fn opening_flex_works() {
        let arguments = DeviceArgs { device: DeviceRequest::Flex };
        let resolved = arguments.open(&Console::silent()).unwrap();
        assert!(resolved.name.starts_with("flex"));
    }
}
