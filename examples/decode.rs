//! What the model gets to see of image files: upright 8-bit RGB, as the library decodes it.
//!
//! ```text
//! cargo run --release --example decode -- photo.heic scan.tif      # a line for each
//! cargo run --release --example decode -- --out folder photo.heic  # and the pixels as PNG
//! ```
//!
//! `tests/mutate_images.py` gives it thousands of damaged files.

use std::path::PathBuf;
use std::process::ExitCode;

use patchword::image::{DecodeLimits, decode_file};

fn main() -> ExitCode {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let out = (paths.first().is_some_and(|first| first.as_os_str() == "--out") && paths.len() > 1)
        .then(|| paths.drain(..2).nth(1))
        .flatten();
    let limits = DecodeLimits::default();
    let mut code = ExitCode::SUCCESS;
    for path in paths {
        let image = match decode_file(&path, &limits) {
            Ok(image) => image,
            Err(error) => {
                println!("refused\t{error}");
                code = ExitCode::from(3);
                continue;
            }
        };
        println!("decoded\t{}\t{} x {}", path.display(), image.width(), image.height());
        if let Some(folder) = &out {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".png");
            if let Err(error) = image.save(folder.join(name)) {
                eprintln!("{}: {error}", path.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
