//! `patchword devices`: what there is to compute on.

use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use super::Outcome;
use super::console::Console;
use super::device::parse_request;
use super::error::CliError;
use crate::device::{
    Adapter, AutoChoice, DeviceRequest, adapters, auto_choice, num_cpu_threads, num_cuda_devices,
    resolve,
};
use crate::plural::counted;

/// List the devices that patchword can compute on, and say which one `auto` takes
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  patchword devices                    what there is, with the names to pass as --device
  patchword devices --json             the same for a script
  patchword devices --device wgpu:0    see whether that device opens

`auto` takes the best real GPU, else flex, which is this machine's CPU. A software adapter, which \
plays GPU on the CPU and is slower than flex, is used only when you name it.")]
pub(super) struct DevicesArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Open this device instead of listing all, and say what it is
    #[arg(long, value_name = "DEVICE", value_parser = parse_request, conflicts_with = "json")]
    device: Option<DeviceRequest>,
}

pub(super) fn run(arguments: DevicesArgs, console: &Console) -> Result<Outcome, CliError> {
    let text = match arguments.device {
        Some(request) => {
            let resolved = resolve(&request)?;
            format!("{request} is {}: {}\n", resolved.name, resolved.reason)
        }
        None => {
            let choice = auto_choice();
            let rows = rows(&adapters(), num_cuda_devices(), &choice);
            if arguments.json { as_json(&rows, &choice) } else { as_table(&rows, &choice) }
        }
    };
    let mut stdout = console.stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(Outcome::Complete)
}

/// One device of the list. An empty text is one that makes no sense for the device.
struct Row {
    request: DeviceRequest,
    name: String,
    kind: String,
    api: String,
    driver: String,
    is_auto: bool,
}

fn rows(adapters: &[Adapter], num_cuda: usize, choice: &AutoChoice) -> Vec<Row> {
    let mut rows: Vec<Row> = adapters
        .iter()
        .map(|adapter| Row {
            request: DeviceRequest::Wgpu(Some(adapter.index)),
            name: adapter.name.clone(),
            kind: adapter.kind.to_string(),
            api: adapter.api.to_string(),
            driver: adapter.driver.clone(),
            is_auto: false,
        })
        .collect();
    rows.extend((0..num_cuda).map(|index| Row {
        request: DeviceRequest::Cuda(Some(index)),
        name: format!("NVIDIA GPU {index}"),
        kind: "discrete GPU".to_string(),
        api: "CUDA".to_string(),
        driver: String::new(),
        is_auto: false,
    }));
    let threads = num_cpu_threads();
    rows.push(Row {
        request: DeviceRequest::Flex,
        name: format!("this CPU, {}", counted(threads, "thread")),
        kind: "CPU".to_string(),
        api: String::new(),
        driver: String::new(),
        is_auto: false,
    });
    for row in &mut rows {
        row.is_auto = row.request == choice.request;
    }
    rows
}

fn as_table(rows: &[Row], choice: &AutoChoice) -> String {
    let mut table: Vec<[String; 5]> =
        vec![["DEVICE", "NAME", "TYPE", "API", "DRIVER"].map(String::from)];
    for row in rows {
        let cells = [&row.request.to_string(), &row.name, &row.kind, &row.api, &row.driver];
        table.push(cells.map(|cell| if cell.is_empty() { "-".into() } else { cell.clone() }));
    }
    let mut widths = [0; 5];
    for line in &table {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &table {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text.push_str(&format!("\nauto takes {}: {}\n", choice.name, choice.reason));
    text
}

fn as_json(rows: &[Row], choice: &AutoChoice) -> String {
    let or_null = |text: &str| if text.is_empty() { Value::Null } else { Value::from(text) };
    let devices: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "device": row.request.to_string(),
                "name": row.name,
                "type": row.kind,
                "api": or_null(&row.api),
                "driver": or_null(&row.driver),
                "auto": row.is_auto,
            })
        })
        .collect();
    let auto = json!({ "device": choice.request.to_string(), "reason": choice.reason });
    format!("{:#}\n", json!({ "auto": auto, "devices": devices }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cuda_choice() -> AutoChoice {
        AutoChoice {
            request: DeviceRequest::Cuda(Some(1)),
            name: "cuda:1".into(),
            reason: "for this test".into(),
        }
    }

    #[test]
    fn the_table_is_aligned_and_ends_with_the_choice() {
        let text = as_table(&rows(&[], 2, &cuda_choice()), &cuda_choice());
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[0].find("TYPE").unwrap();
        assert_eq!(lines[1].find("discrete GPU"), Some(column));
        assert_eq!(&lines[3][column..column + 3], "CPU");
        assert_eq!(lines.last(), Some(&"auto takes cuda:1: for this test"));
        assert!(lines.iter().all(|line| line.trim_end() == *line));
    }

    #[test]
    fn json_marks_the_device_auto_takes() {
        let text = as_json(&rows(&[], 2, &cuda_choice()), &cuda_choice());
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["auto"]["device"], "cuda:1");
        let auto: Vec<bool> = value["devices"]
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["auto"].as_bool().unwrap())
            .collect();
        assert_eq!(auto, [false, true, false]);
        assert_eq!(value["devices"][2]["device"], "flex");
        assert_eq!(value["devices"][2]["api"], Value::Null);
    }
}
