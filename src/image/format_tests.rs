//! Tests on one small file of each kind that cameras, phones, scanners and editors leave, against what
//! other programs decode it to: `testdata/make_formats.py` says which, and makes them.

use std::path::{Path, PathBuf};

use ::image::RgbImage;

use super::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/testdata/formats")
}

fn decoded(name: &str) -> Result<RgbImage, ImageError> {
    decode_file(&folder().join(name), &DecodeLimits::default())
}

/// The reference of a file: its own, or the one that all of its kind have.
fn reference(name: &str) -> RgbImage {
    let own = format!("{name}.png");
    let shared = if name.starts_with("camera") { "camera.png" } else { "turned.png" };
    decoded(if folder().join(&own).exists() { &own } else { shared }).unwrap()
}

/// The most by which a value may differ, and by which they may on average.
fn tolerance(name: &str) -> (u8, f64) {
    match name {
        // Chroma is interpolated otherwise than by libheif; JPEG against the photo before it was one.
        "photo.heic" => (64, 2.5),
        "turned-xmp.jpg" | "turned-long.jpg" => (64, 6.0),
        // Chroma of four inks is doubled otherwise than by libjpeg, and inks are multiplied otherwise than by Pillow.
        "inks-ycck.jpg" => (40, 3.0),
        "odd.dds" => (8, 1.0),
        "photo.jxl" => (2, 0.1),
        _ if name.starts_with("camera") => (8, 0.5),
        _ if name.ends_with(".jpg") || name.ends_with(".mpo") || name.ends_with("-jpeg.tif") => {
            (4, 0.5)
        }
        // Rounding of alpha and of floats.
        _ if name.ends_with(".tif") => (1, 0.5),
        _ => (0, 0.0),
    }
}

#[test]
fn every_kind_has_the_pixels_that_other_programs_see() {
    let mut count = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_of_a_feature = match Path::new(&name).extension().and_then(|found| found.to_str()) {
            Some("heic") => !cfg!(feature = "heif"),
            Some("jxl") => !cfg!(feature = "jxl"),
            Some("jp2") => !cfg!(feature = "jpeg2000"),
            _ => false,
        };
        if name.ends_with(".png") || name.starts_with("refused") || is_of_a_feature {
            continue;
        }
        let found = decoded(&name).unwrap_or_else(|error| panic!("{error}"));
        let expected = reference(&name);
        assert_eq!(found.dimensions(), expected.dimensions(), "{name}");
        let pairs = found.as_raw().iter().zip(expected.as_raw());
        let differences: Vec<u8> = pairs.map(|(a, b)| a.abs_diff(*b)).collect();
        let most = differences.iter().copied().max().unwrap();
        let sum: u32 = differences.iter().map(|&difference| u32::from(difference)).sum();
        let mean = f64::from(sum) / differences.len() as f64;
        let (allowed, allowed_mean) = tolerance(&name);
        assert!(most <= allowed && mean <= allowed_mean, "{name}: most {most}, mean {mean}");
        count += 1;
    }
    assert!(count > 40, "{count}");
}

#[test]
fn what_is_not_read_is_named() {
    for (name, part) in [
        ("refused-arithmetic.jpg", "JPEG with arithmetic coding"),
        ("refused-no-preview.raf", "camera RAW without a JPEG preview"),
        ("refused-zstandard.tif", "TIFF compressed as Zstandard"),
        ("refused-444.heic", "HEIF with 4:4:4 colour"),
    ] {
        let error = decoded(name).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    for (head, part) in [
        (b"\0\0\0\x1Cftypmif1\0\0\0\0mif1avif".as_slice(), "AVIF"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"II\xBC\x01", "JPEG XR"),
        (b"<svg xmlns=\"http://www.w3.org/2000/svg\">", "SVG"),
        (b"\xEF\xBB\xBF<?xml version=\"1.0\"?>\n<svg width=\"1\">", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\x89PNG\r\n\x1A\n\0\0\0\x04CgBI\x50\0\x20\x02", "CgBI"),
    ] {
        let error = decode_bytes(head, Path::new("x.jpg"), &DecodeLimits::default()).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn what_is_no_image_is_said_to_be_what_it_is() {
    for (head, part) in [
        (b"<!DOCTYPE html>\n<html>".as_slice(), "a web page"),
        (b"{\"error\":\"rate limited\"}", "JSON"),
        (b"\xFF\xFE<\0h\0t\0m\0l\0>\0", "a web page"),
        (b"PK\x03\x04\x14\0", "a ZIP archive"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0", "a video"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "RIFF"),
        (&[0; 64], "zero bytes"),
        (b"", "the file is empty"),
    ] {
        let error = decode_bytes(head, Path::new("x.jpg"), &DecodeLimits::default()).unwrap_err();
        assert!(matches!(error, ImageError::Unrecognised { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    let error = decode_bytes(pointer, Path::new("x.jpg"), &DecodeLimits::default()).unwrap_err();
    assert!(error.to_string().contains("git lfs pull"), "{error}");
}

#[test]
fn a_jpeg_without_room_comes_smaller_where_that_is_enough() {
    let bytes = std::fs::read(folder().join("sampled-2x2-progressive.jpg")).unwrap();
    let mut limits =
        DecodeLimits { memory: MemoryBudget::of_bytes((4 << 20) + 9000), ..Default::default() };
    let name = Path::new("a.jpg");
    assert!(matches!(decode_bytes(&bytes, name, &limits), Err(ImageError::NeedsMemory { .. })));
    limits.enough = Some((16, 12));
    assert_eq!(decode_bytes(&bytes, name, &limits).unwrap().dimensions(), (19, 14));
    // With room it is whole.
    limits.memory = MemoryBudget::of_bytes(64 << 20);
    assert_eq!(decode_bytes(&bytes, name, &limits).unwrap().dimensions(), (37, 27));
}
