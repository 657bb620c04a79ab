//! Tests of decoding: formats, pixel types, orientation, limits and damage.

use std::io::Cursor;
use std::path::PathBuf;

use ::image::codecs::gif::GifEncoder;
use ::image::{
    Frame, ImageBuffer, ImageFormat, Luma, LumaA, Rgb, Rgb32FImage, Rgba, Rgba32FImage, RgbaImage,
};

use super::super::colour::{self, Alpha};
use super::super::signature::{EXTENSIONS, is_image_path};
use super::*;

const RED: [u8; 3] = [250, 20, 30];
const GREEN: [u8; 3] = [30, 240, 40];
const BLUE: [u8; 3] = [20, 30, 250];
const YELLOW: [u8; 3] = [240, 230, 20];

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/image/testdata");
    std::fs::read(folder.join(name)).unwrap()
}

fn decode(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode_bytes(bytes, Path::new("folder/photo.jpg"), &DecodeLimits::default())
}

fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Red, green over blue, yellow.
fn quadrants() -> RgbImage {
    RgbImage::from_fn(32, 16, |x, y| {
        Rgb(match (x < 16, y < 8) {
            (true, true) => RED,
            (false, true) => GREEN,
            (true, false) => BLUE,
            (false, false) => YELLOW,
        })
    })
}

/// The colours in the middle of the four quarters: top left, top right, bottom left, bottom right.
fn quarters(image: &RgbImage) -> [[u8; 3]; 4] {
    let (w, h) = image.dimensions();
    [(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| image.get_pixel(w * x / 4, h * y / 4).0)
}

#[track_caller]
fn assert_quarters(image: &RgbImage, expected: [[u8; 3]; 4], tolerance: u8) {
    let found = quarters(image);
    let close = found
        .as_flattened()
        .iter()
        .zip(expected.as_flattened())
        .all(|(a, b)| a.abs_diff(*b) <= tolerance);
    assert!(close, "found {found:?}, expected {expected:?}");
}

/// The four quarters in a photo of smooth colours and fine grain, as a decoder meets them: large
/// enough that a cut or a flipped bit hits pixels.
fn busy() -> RgbImage {
    RgbImage::from_fn(97, 61, |x, y| {
        let grain = (x * 7919 + y * 104_729 + x * y * 31) % 61;
        Rgb([(x * 2 + grain) as u8, (y * 3 + grain) as u8, (x + y + grain) as u8])
    })
}

#[test]
fn formats_are_told_by_content_not_by_name() {
    let formats = [
        ImageFormat::Png,
        ImageFormat::Gif,
        ImageFormat::WebP,
        ImageFormat::Tiff,
        ImageFormat::Bmp,
        ImageFormat::Tga,
        ImageFormat::Ico,
        ImageFormat::Pnm,
        ImageFormat::Qoi,
    ];
    for format in formats {
        let source = match format {
            // The ICO and GIF encoders take RGBA.
            ImageFormat::Ico | ImageFormat::Gif => {
                DynamicImage::ImageRgba8(DynamicImage::ImageRgb8(quadrants()).into_rgba8())
            }
            _ => DynamicImage::ImageRgb8(quadrants()),
        };
        let decoded = decode(&encode(&source, format)).unwrap();
        assert_eq!(decoded.dimensions(), (32, 16), "{format:?}");
        assert_quarters(&decoded, [RED, GREEN, BLUE, YELLOW], 3);
    }
    let rgba16 = DynamicImage::ImageRgb8(quadrants()).into_rgba16();
    let farbfeld = encode(&DynamicImage::ImageRgba16(rgba16), ImageFormat::Farbfeld);
    assert_quarters(&decode(&farbfeld).unwrap(), [RED, GREEN, BLUE, YELLOW], 0);
}

#[test]
fn files_are_read_whatever_they_are_called() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really a png.jpg");
    std::fs::write(&path, encode(&quadrants().into(), ImageFormat::Png)).unwrap();
    assert_eq!(decode_file(&path, &DecodeLimits::default()).unwrap(), quadrants());

    let missing = folder.path().join("missing.png");
    let error = decode_file(&missing, &DecodeLimits::default()).unwrap_err();
    assert!(matches!(error, ImageError::Io { .. }), "{error}");
    assert!(error.to_string().contains(&missing.display().to_string()), "{error}");
}

#[test]
fn what_is_no_regular_file_is_named_without_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let error = decode_file(folder.path(), &DecodeLimits::default()).unwrap_err();
    assert!(error.to_string().ends_with("not a regular file: it is a folder"), "{error}");
    #[cfg(unix)]
    {
        let socket = folder.path().join("socket.jpg");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = folder.path().join("link.jpg");
        std::os::unix::fs::symlink("gone.jpg", &link).unwrap();
        let cases = [
            (socket.as_path(), "it is a socket"),
            (link.as_path(), "a link to nothing: there is no gone.jpg"),
            (Path::new("/dev/null"), "it is a device"),
        ];
        for (path, part) in cases {
            let error = decode_file(path, &DecodeLimits::default()).unwrap_err().to_string();
            assert!(error.ends_with(part), "{error}");
        }
        // Nobody writes to it: opening it would wait for ever.
        let pipe = folder.path().join("pipe.jpg");
        if std::process::Command::new("mkfifo").arg(&pipe).status().is_ok_and(|made| made.success())
        {
            let error = decode_file(&pipe, &DecodeLimits::default()).unwrap_err().to_string();
            assert!(error.ends_with("it is a pipe"), "{error}");
        }
    }
}

#[test]
fn memory_is_refused_by_the_byte_before_it_is_taken() {
    let limits =
        |bytes| DecodeLimits { memory: MemoryBudget::of_bytes(bytes), ..DecodeLimits::default() };
    let sound = encode(&quadrants().into(), ImageFormat::Png);
    decode_bytes(&sound, Path::new("a"), &limits(8 << 20)).unwrap();
    for bytes in [bomb(10_000, 10_000), fixture("progressive.jpg"), sound] {
        let error = decode_bytes(&bytes, Path::new("a"), &limits(1 << 20)).unwrap_err();
        assert!(matches!(error, ImageError::NeedsMemory { .. }), "{error}");
        assert!(error.to_string().contains("of memory to decode, and 1 MB are allowed"), "{error}");
    }
    // A file longer than the budget is not read.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.png");
    std::fs::write(&path, bomb(1, 1)).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(6 << 30).unwrap();
    let error = decode_file(&path, &DecodeLimits::default()).unwrap_err();
    assert!(matches!(error, ImageError::TooLong { bytes: 6_442_450_944, .. }), "{error}");
}

#[test]
fn image_paths_are_known_by_extension_in_any_case() {
    for path in [
        "a.jpg",
        "b/c.PNG",
        "d.JPeG",
        "e.webp",
        "f.tar.tif",
        ".x/y.gif",
        "g.HEIC",
        "h.CR2",
        "i.MPO",
    ] {
        assert!(is_image_path(Path::new(path)), "{path}");
    }
    for path in ["a.txt", "jpg", ".jpg", "b.jpg.caption", "c.", "d.mp4"] {
        assert!(!is_image_path(Path::new(path)), "{path}");
    }
    assert!(EXTENSIONS.is_sorted());
}

#[test]
fn jpegs_of_every_colour_space_have_the_colours_of_pillow() {
    // Printed by testdata/make_testdata.py.
    let cmyk = [[245, 14, 34], [27, 195, 34], [25, 55, 255], [135, 124, 13]];
    let cases = [
        ("cmyk_adobe.jpg", cmyk),
        ("cmyk_plain.jpg", cmyk),
        ("ycck_adobe.jpg", [[125, 0, 192], [195, 156, 0], [52, 255, 255], [76, 0, 0]]),
        ("progressive.jpg", [[250, 20, 32], [29, 240, 39], [21, 29, 252], [241, 229, 21]]),
        ("rgb_adobe.jpg", [RED, GREEN, BLUE, YELLOW]),
        ("grey.jpg", [[90; 3], [154; 3], [52; 3], [209; 3]]),
        ("cmyk.tif", cmyk),
    ];
    for (name, expected) in cases {
        eprintln!("{name}");
        assert_quarters(&decode(&fixture(name)).unwrap(), expected, 3);
    }
}

#[test]
fn only_the_first_frame_of_an_animation_is_taken() {
    for name in ["animated.png", "animated.webp", "animated.gif"] {
        eprintln!("{name}");
        let decoded = decode(&fixture(name)).unwrap();
        assert_quarters(&decoded, [RED, GREEN, BLUE, YELLOW], 3);
    }
    let mut gif = Vec::new();
    let mut encoder = GifEncoder::new(&mut gif);
    for colour in [[9, 8, 7, 255], [200, 100, 0, 255]] {
        encoder.encode_frame(Frame::new(RgbaImage::from_pixel(5, 5, Rgba(colour)))).unwrap();
    }
    drop(encoder);
    assert!(decode(&gif).unwrap().pixels().all(|pixel| pixel.0 == [9, 8, 7]));
}

#[test]
fn transparency_lies_over_white_in_8_bits() {
    let rgba = RgbaImage::from_raw(3, 1, vec![0, 100, 255, 255, 0, 100, 255, 0, 0, 100, 255, 51]);
    let decoded = decode(&encode(&rgba.unwrap().into(), ImageFormat::Png)).unwrap();
    // 51 / 255 = one fifth: 255 * 4 / 5 = 204 of white and a fifth of the colour.
    assert_eq!(decoded.as_raw(), &[0, 100, 255, 255, 255, 255, 204, 224, 255]);

    let grey = ImageBuffer::<LumaA<u8>, _>::from_raw(2, 1, vec![80, 255, 80, 51]).unwrap();
    let decoded = decode(&encode(&DynamicImage::ImageLumaA8(grey), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.as_raw(), &[80, 80, 80, 220, 220, 220]);
}

#[test]
fn sixteen_bits_are_scaled_and_rounded_once() {
    let grey = vec![0, 128, 129, 257 * 77, 65535 - 128, 65535];
    let grey = ImageBuffer::<Luma<u16>, Vec<u16>>::from_raw(6, 1, grey).unwrap();
    let decoded = decode(&encode(&DynamicImage::ImageLuma16(grey), ImageFormat::Png)).unwrap();
    let values: Vec<u8> = decoded.pixels().map(|pixel| pixel.0[0]).collect();
    assert_eq!(values, [0, 0, 1, 77, 255, 255]);

    let rgba = vec![0u16, 25700, 65535, 13107, 257, 514, 771, 65535];
    let rgba = ImageBuffer::<Rgba<u16>, _>::from_raw(2, 1, rgba).unwrap();
    let decoded = decode(&encode(&DynamicImage::ImageRgba16(rgba), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.as_raw(), &[204, 224, 255, 1, 2, 3]);

    let grey = ImageBuffer::<LumaA<u16>, _>::from_raw(1, 1, vec![20560u16, 13107]).unwrap();
    let decoded = decode(&encode(&DynamicImage::ImageLumaA16(grey), ImageFormat::Png)).unwrap();
    assert_eq!(decoded.as_raw(), &[220, 220, 220]);
}

#[test]
fn floats_are_clamped() {
    let values = vec![0.0f32, 0.5, 1.0, -3.0, 7.5, 0.25];
    let float = Rgb32FImage::from_raw(2, 1, values).unwrap();
    let exr = encode(&DynamicImage::ImageRgb32F(float.clone()), ImageFormat::OpenExr);
    assert_eq!(decode(&exr).unwrap().as_raw(), &[0, 128, 255, 0, 255, 64]);
    let hdr = encode(&DynamicImage::ImageRgb32F(float), ImageFormat::Hdr);
    let decoded = decode(&hdr).unwrap();
    assert!(decoded.as_raw()[1].abs_diff(128) <= 1 && decoded.as_raw()[4] == 255, "{decoded:?}");

    // OpenEXR holds colours multiplied by their alpha: 0.2 at 0.5 is 0.2 + 0.5 over white.
    let premultiplied = Rgba32FImage::from_raw(1, 1, vec![0.2, 0.0, 0.5, 0.5]).unwrap();
    let exr = encode(&DynamicImage::ImageRgba32F(premultiplied), ImageFormat::OpenExr);
    assert_eq!(decode(&exr).unwrap().as_raw(), &[179, 128, 255]);

    let odd = Rgb32FImage::from_raw(1, 1, vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
    let rgb = colour::to_rgb8(DynamicImage::ImageRgb32F(odd.unwrap()), Alpha::Straight);
    assert_eq!(rgb.as_raw(), &[0, 255, 0]);
}

#[test]
fn a_palette_may_have_a_transparent_entry() {
    let decoded = decode(&fixture("palette.png")).unwrap();
    assert_quarters(&decoded, [[255; 3], GREEN, BLUE, YELLOW], 3);
}

/// `jpeg` with an EXIF segment that holds nothing but an orientation.
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xFF, 0xE1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn every_exif_orientation_is_applied() {
    let jpeg = encode(&quadrants().into(), ImageFormat::Jpeg);
    // Top left, top right, bottom left, bottom right of the upright photo. Row 0 of what is stored
    // is, for each value: 1 top, 2 top mirrored, 3 bottom, 4 bottom, 5 left side, 6 right side,
    // 7 right side, 8 left side.
    let cases = [
        (1, [RED, GREEN, BLUE, YELLOW]),
        (2, [GREEN, RED, YELLOW, BLUE]),
        (3, [YELLOW, BLUE, GREEN, RED]),
        (4, [BLUE, YELLOW, RED, GREEN]),
        (5, [RED, BLUE, GREEN, YELLOW]),
        (6, [BLUE, RED, YELLOW, GREEN]),
        (7, [YELLOW, GREEN, BLUE, RED]),
        (8, [GREEN, YELLOW, RED, BLUE]),
        // Values that mean nothing.
        (0, [RED, GREEN, BLUE, YELLOW]),
        (9, [RED, GREEN, BLUE, YELLOW]),
    ];
    for (orientation, expected) in cases {
        let decoded = decode(&with_orientation(&jpeg, orientation)).unwrap();
        let size = if (5..=8).contains(&orientation) { (16, 32) } else { (32, 16) };
        assert_eq!(decoded.dimensions(), size, "orientation {orientation}");
        assert_quarters(&decoded, expected, 30);
    }
    for name in ["orientation6.png", "orientation6.webp", "orientation6.tif"] {
        eprintln!("{name}");
        let decoded = decode(&fixture(name)).unwrap();
        assert_eq!(decoded.dimensions(), (16, 32));
        assert_quarters(&decoded, [BLUE, RED, YELLOW, GREEN], 0);
    }
}

/// A PNG whose header claims a size and whose pixels are missing.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut png = encode(&DynamicImage::new_luma8(1, 1), ImageFormat::Png);
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = png_checksum(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());
    png
}

fn png_checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0xEDB8_8320 * (sum & 1)))
    })
}

#[test]
fn bombs_are_refused_before_a_pixel_is_decoded() {
    let error = decode(&bomb(30_000, 30_000)).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    let text = error.to_string();
    for part in ["photo.jpg", "30000 x 30000", "178956970"] {
        assert!(text.contains(part), "{text}");
    }
    let error = decode(&bomb(1 << 30, 1 << 30)).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");

    // Any format, and exactly at the limit.
    let busy: DynamicImage = busy().into();
    let sound = [ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Tga];
    for bytes in sound.map(|format| encode(&busy, format)) {
        let pixels = 97 * 61;
        let limit = DecodeLimits::of_pixels;
        decode_bytes(&bytes, Path::new("a"), &limit(pixels)).unwrap();
        let error = decode_bytes(&bytes, Path::new("a"), &limit(pixels - 1)).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { width: 97, height: 61, .. }), "{error}");
    }
}

#[test]
fn what_is_no_image_is_named_for_what_it_is() {
    let cases: [(&[u8], &str); 7] = [
        (b"", "the file is empty"),
        (b"a dog runs on the beach\n", "the text \"a dog runs on the beach\\n\""),
        (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "nothing but zero bytes"),
        (b"\x89PNG", "the bytes 89 50 4E 47"),
        (b"\0\0\0\x1Cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\xFF\x0A\x00", "JPEG XL"),
    ];
    for (bytes, part) in cases {
        let text = decode(bytes).unwrap_err().to_string();
        assert!(text.contains(part) && text.starts_with("folder/photo.jpg: "), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}

#[test]
fn images_without_pixels_are_errors() {
    let mut gif = fixture("animated.gif");
    gif[6..10].fill(0);
    let mut qoi = encode(&quadrants().into(), ImageFormat::Qoi);
    qoi[4..12].fill(0);
    for bytes in [gif, qoi, bomb(0, 10), b"P6 0 5 255\n".to_vec()] {
        let error = decode(&bytes).unwrap_err();
        assert!(matches!(error, ImageError::Empty { .. } | ImageError::Decode { .. }), "{error}");
    }
}

/// Sound files of every kind, large enough to be damaged in many places.
fn sound_files() -> Vec<(String, Vec<u8>)> {
    let photo = DynamicImage::ImageRgb8(busy());
    let rgba = DynamicImage::ImageRgba8(photo.to_rgba8());
    let float = DynamicImage::ImageRgb32F(photo.to_rgb32f());
    let deep = DynamicImage::ImageRgba16(photo.to_rgba16());
    let encoded = [
        (ImageFormat::Jpeg, &photo),
        (ImageFormat::Png, &photo),
        (ImageFormat::Png, &deep),
        (ImageFormat::Gif, &rgba),
        (ImageFormat::WebP, &photo),
        (ImageFormat::Tiff, &photo),
        (ImageFormat::Bmp, &photo),
        (ImageFormat::Tga, &photo),
        (ImageFormat::Ico, &rgba),
        (ImageFormat::Pnm, &photo),
        (ImageFormat::Qoi, &photo),
        (ImageFormat::Farbfeld, &deep),
        (ImageFormat::Hdr, &float),
        (ImageFormat::OpenExr, &float),
    ];
    let mut files: Vec<(String, Vec<u8>)> = encoded
        .iter()
        .map(|(format, image)| (format!("{format:?}"), encode(image, *format)))
        .collect();
    let names = [
        "progressive.jpg",
        "cmyk_adobe.jpg",
        "lossy.webp",
        "animated.webp",
        "animated.png",
        "animated.gif",
        "palette.png",
        "cmyk.tif",
        "orientation6.tif",
    ];
    files.extend(names.map(|name| (name.to_owned(), fixture(name))));
    files
}

#[test]
fn a_truncated_file_is_an_error_wherever_it_was_cut() {
    for (name, bytes) in sound_files() {
        decode(&bytes).unwrap_or_else(|error| panic!("{name} is sound: {error}"));
        // TIFF keeps its directory at the end, an animation further frames, PNG and others some
        // bytes after the pixels; up to two thirds of the file pixels are missing for certain.
        let certain = if name.starts_with("animated") { 40 } else { 66 };
        for percent in 0..certain {
            let cut = &bytes[..bytes.len() * percent / 100];
            match decode(cut) {
                Ok(_) => panic!("{name} cut to {percent} % decodes"),
                Err(error) => assert!(error.to_string().starts_with("folder/photo.jpg: ")),
            }
        }
    }
    // A JPEG whose end marker alone is missing is whole; with a byte less it is not.
    for name in ["progressive.jpg", "cmyk_adobe.jpg", "grey.jpg", "rgb_adobe.jpg"] {
        let bytes = fixture(name);
        let whole = decode(&bytes).unwrap();
        for missing in [1, 2] {
            assert_eq!(decode(&bytes[..bytes.len() - missing]).unwrap(), whole, "{name}");
        }
        for missing in [3, 20] {
            let error = decode(&bytes[..bytes.len() - missing]).unwrap_err();
            assert!(matches!(error, ImageError::Truncated { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn an_embedded_thumbnail_does_not_end_a_jpeg() {
    let jpeg = encode(&busy().into(), ImageFormat::Jpeg);
    let thumbnail = [0xFF, 0xE2, 0, 8, 0xFF, 0xD8, 1, 2, 0xFF, 0xD9];
    let whole = [&jpeg[..2], &thumbnail, &jpeg[2..]].concat();
    assert!(decode(&whole).is_ok());
    assert!(decode(&[&whole, b"bytes after the end".as_slice()].concat()).is_ok());
    // Cut, with the end marker that recovery tools append, or another photo behind the cut.
    for rest in [[0xFF, 0xD9].as_slice(), &jpeg] {
        let error = decode(&[&whole[..whole.len() - 40], rest].concat()).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
    }
    let error = decode(&whole[..whole.len() / 2]).unwrap_err();
    assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
}

#[test]
fn flipped_bits_never_panic() {
    // Small limits, so that a size made of flipped bits does not cost seconds.
    let limits = DecodeLimits::of_pixels(1_000_000);
    let mut state = 12345u64;
    let mut random = move |bound: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let name = PathBuf::from("damaged.bin");
    for (file, bytes) in sound_files() {
        let mut errors = 0;
        for round in 0..150 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + round % 8 {
                // Half of the flips go to the header, where they do most.
                let bound = if round % 2 == 0 { damaged.len().min(64) } else { damaged.len() };
                damaged[random(bound)] ^= 1 << random(8);
            }
            if round % 5 == 0 {
                damaged.truncate(random(damaged.len()));
            }
            if let Err(error) = decode_bytes(&damaged, &name, &limits) {
                errors += 1;
                assert!(error.to_string().starts_with("damaged.bin: "), "{file}: {error}");
            }
        }
        assert!(errors > 0, "{file}: no flip did any harm");
    }
}
