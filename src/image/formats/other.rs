//! What the image crate reads whole, and formats with a library of their own behind a feature.

use std::io::Cursor;

use ::image::metadata::Orientation;
use ::image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::super::colour::{self, Alpha};
use super::super::orientation;
use super::super::signature::Format;
use super::{Failure, Job, Stored};

pub(super) fn decode(format: Format, bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    match format {
        #[cfg(feature = "heif")]
        Format::Heif => heif::decode(bytes, job),
        #[cfg(feature = "jxl")]
        Format::JpegXl => jpeg_xl::decode(bytes, job),
        #[cfg(feature = "jpeg2000")]
        Format::Jpeg2000 => jpeg_2000::decode(bytes, job),
        Format::WebP => {
            let orientation = orientation::of_webp(bytes);
            with_image_crate(ImageFormat::WebP, bytes, orientation, job)
        }
        Format::Dds => decode_dds(bytes, job),
        format => match format.in_image_crate() {
            Some(format) => with_image_crate(format, bytes, None, job),
            None => Err(Failure::Unsupported(format!("{} image", format.name()))),
        },
    }
}

/// Blocks of 4 x 4 pixels, the last ones of a line or column cut: the image crate takes whole ones only.
fn decode_dds(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
    const HEIGHT: std::ops::Range<usize> = 12..16;
    const WIDTH: std::ops::Range<usize> = 16..20;
    const KIND: std::ops::Range<usize> = 84..88;
    let kind = bytes.get(KIND);
    if kind.is_some_and(|kind| !matches!(kind, b"DXT1" | b"DXT3" | b"DXT5" | b"DX10")) {
        return Err(Failure::Unsupported("DDS other than DXT1, DXT3 and DXT5".into()));
    }
    let mut whole = bytes.to_vec();
    let mut round_up = |place: std::ops::Range<usize>| {
        let number = whole.get_mut(place)?;
        let exact = u32::from_le_bytes([number[0], number[1], number[2], number[3]]);
        number.copy_from_slice(&exact.checked_next_multiple_of(4)?.to_le_bytes());
        Some(exact)
    };
    let (height, width) = (round_up(HEIGHT).unwrap_or(0), round_up(WIDTH).unwrap_or(0));
    let mut stored = with_image_crate(ImageFormat::Dds, &whole, None, job)?;
    if stored.pixels.dimensions() != (width, height) {
        stored.pixels = ::image::imageops::crop_imm(&stored.pixels, 0, 0, width, height).to_image();
    }
    Ok(stored)
}

pub(super) fn with_image_crate(
    format: ImageFormat,
    bytes: &[u8],
    orientation: Option<Orientation>,
    job: &mut Job<'_>,
) -> Result<Stored, Failure> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allocation = Limits::no_limits();
    allocation.max_alloc = Some(job.limits.memory.total().saturating_mul(2));
    reader.limits(allocation);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    let stored = u64::from(decoder.color_type().bytes_per_pixel());
    // Its own planes, its pixels, and 8-bit ones beside them where they are others.
    let planes = match format {
        ImageFormat::WebP => 4,
        ImageFormat::OpenExr => stored,
        _ => 0,
    };
    let converted = if decoder.color_type() == ColorType::Rgb8 { 0 } else { 3 };
    let turning = orientation::bytes_to_turn(orientation);
    job.admit(width, height, planes + stored + converted.max(turning))?;
    let decoded = DynamicImage::from_decoder(decoder)?;
    let decoded = match format {
        ImageFormat::Bmp | ImageFormat::Tga => colour::without_unused_alpha(decoded),
        _ => decoded,
    };
    let alpha = match format {
        ImageFormat::OpenExr => Alpha::Premultiplied,
        _ => Alpha::Straight,
    };
    Ok(Stored::new(colour::to_rgb8(decoded, alpha), orientation))
}

/// HEIC: HEVC in a HEIF container, by heic-rs, which turns it upright itself.
#[cfg(feature = "heif")]
mod heif {
    use ::image::{RgbImage, RgbaImage};
    use heic_rs::context::Context;
    use heic_rs::hevc::{self, Frame};
    use heic_rs::{
        ChromaFormat, DecodeOptions, Error, MatrixCoefficients, Nclx, PixelLayout, Range, color,
        grid, transform,
    };

    use super::*;

    pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
        let info = heic_rs::probe(bytes).map_err(failed)?;
        // Planes of 16 bits, of the tiles and of the whole; pixels, once more when turned.
        job.admit(info.width, info.height, if info.has_alpha { 24 } else { 18 })?;
        let layout = if info.has_alpha { PixelLayout::Rgba8 } else { PixelLayout::Rgb8 };
        let options = DecodeOptions::default()
            .with_layout(layout)
            .with_max_pixels(Some(job.limits.max_pixels))
            .with_threads(Some(1));
        let image = decode_pixels(bytes, &options).map_err(|error| match info.chroma {
            // What heic-rs 0.1 says of these is that they are damaged.
            ChromaFormat::Yuv422 => Failure::Unsupported("HEIF with 4:2:2 colour".into()),
            ChromaFormat::Yuv444 => Failure::Unsupported("HEIF with 4:4:4 colour".into()),
            _ => failed(error),
        })?;
        let (width, height) = (image.width, image.height);
        let decoded = if info.has_alpha {
            RgbaImage::from_raw(width, height, image.data).map(DynamicImage::ImageRgba8)
        } else {
            RgbImage::from_raw(width, height, image.data).map(DynamicImage::ImageRgb8)
        };
        let decoded = decoded.ok_or_else(|| Failure::Damaged("too few pixels".into()))?;
        Ok(Stored::new(colour::to_rgb8(decoded, Alpha::Straight), Some(Orientation::NoTransforms)))
    }

    /// As [`heic_rs::decode`], but where the file does not say what its colours are, as cameras' often
    /// do not: those are BT.601 in the full range to libheif and to phones, and BT.709 in the limited
    /// one to heic-rs 0.1.
    fn decode_pixels(bytes: &[u8], options: &DecodeOptions) -> heic_rs::Result<heic_rs::Image> {
        let context = Context::open(bytes)?;
        let primary = context.meta.primary;
        let properties = context.props(primary)?;
        if properties.nclx.is_some() {
            return heic_rs::decode(bytes, options);
        }
        let limit = options.pixel_limit();
        let frame = decode_item(&context, primary, limit)?;
        let alpha = match context.alpha_item(primary)? {
            Some(item) if options.layout.has_alpha() => Some(decode_item(&context, item, limit)?),
            _ => None,
        };
        let unlabelled = Nclx {
            matrix: MatrixCoefficients::from_code(6),
            matrix_code: 6,
            range: Range::Full,
            ..Nclx::default()
        };
        let image =
            color::convert(&frame, alpha.as_ref(), unlabelled, options.layout, limit, Some(1))?;
        transform::apply_all(image, &properties.transforms)
    }

    fn decode_item(context: &Context<'_>, item: u32, limit: u64) -> heic_rs::Result<Frame> {
        let picture = |item: u32| {
            let properties = context.props(item)?;
            let config = properties.hvcc.as_ref().ok_or(Error::MissingBox("hvcC"))?;
            let data = context.item_data(item)?;
            let frame = hevc::decode_still(&config.parameter_sets(), &config.split_nals(&data)?)?;
            frame.validate()?;
            Ok(frame)
        };
        match context.grid(item)? {
            Some((layout, tiles)) => {
                let tiles = tiles.into_iter().map(picture).collect::<heic_rs::Result<Vec<_>>>()?;
                grid::compose(&layout, &tiles, limit)
            }
            None => picture(item),
        }
    }

    fn failed(error: Error) -> Failure {
        match error {
            Error::Truncated(what) => Failure::Truncated(format!("it ends within {what}")),
            Error::Unsupported(what) => Failure::Unsupported(format!("HEIF with {what}")),
            error => Failure::Damaged(error.to_string()),
        }
    }
}

/// JPEG XL, by jxl-oxide, which turns it upright itself.
#[cfg(feature = "jxl")]
mod jpeg_xl {
    use ::image::{Rgb32FImage, Rgba32FImage};
    use jxl_oxide::{AllocTracker, EnumColourEncoding, JxlImage, RenderingIntent};

    use super::*;

    pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
            Failure::Damaged(error.to_string().replace('\n', " "))
        };
        let limit = usize::try_from(job.limits.memory.total()).unwrap_or(usize::MAX);
        let mut image = JxlImage::builder()
            .alloc_tracker(AllocTracker::with_limit(limit))
            .read(Cursor::new(bytes))
            .map_err(failed)?;
        let (width, height) = (image.width(), image.height());
        // Floats of three or four channels, in the decoder, in its output and here.
        job.admit(width, height, 44)?;
        if image.num_loaded_keyframes() == 0 {
            return Err(Failure::Truncated("the file ends before its first frame does".into()));
        }
        image.request_color_encoding(EnumColourEncoding::srgb(RenderingIntent::Relative));
        let render = image.render_frame(0).map_err(failed)?;
        let mut stream = render.stream();
        let channels = stream.channels();
        let mut samples =
            vec![0.0; stream.width() as usize * stream.height() as usize * channels as usize];
        let (width, height) = (stream.width(), stream.height());
        stream.write_to_buffer(&mut samples);
        let decoded = match channels {
            1 => {
                let grey = samples.iter().flat_map(|&grey| [grey; 3]).collect();
                Rgb32FImage::from_raw(width, height, grey).map(DynamicImage::ImageRgb32F)
            }
            2 => {
                let pairs = samples.as_chunks::<2>().0;
                let grey = pairs.iter().flat_map(|&[grey, a]| [grey, grey, grey, a]).collect();
                Rgba32FImage::from_raw(width, height, grey).map(DynamicImage::ImageRgba32F)
            }
            3 => Rgb32FImage::from_raw(width, height, samples).map(DynamicImage::ImageRgb32F),
            4 => Rgba32FImage::from_raw(width, height, samples).map(DynamicImage::ImageRgba32F),
            _ => return Err(Failure::Unsupported("JPEG XL with more than four channels".into())),
        };
        let decoded = decoded.ok_or_else(|| Failure::Damaged("too few pixels".into()))?;
        Ok(Stored::new(colour::to_rgb8(decoded, Alpha::Straight), Some(Orientation::NoTransforms)))
    }
}

/// JPEG 2000, by hayro-jpeg2000.
#[cfg(feature = "jpeg2000")]
mod jpeg_2000 {
    use ::image::RgbImage;
    use hayro_jpeg2000::{ColorSpace, DecodeSettings, DecoderContext, Image};

    use super::*;

    pub(super) fn decode(bytes: &[u8], job: &mut Job<'_>) -> Result<Stored, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Damaged(error.to_string());
        // Strict: a file that was cut is an error, not a blurred image.
        let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
        let image = Image::new(bytes, &settings).map_err(|error| failed(&error))?;
        let (width, height) = (image.width(), image.height());
        let colours: usize = match image.color_space() {
            ColorSpace::Gray => 1,
            ColorSpace::RGB => 3,
            ColorSpace::CMYK => 4,
            ColorSpace::Icc { num_channels, .. } => usize::from(*num_channels),
            ColorSpace::Unknown { num_channels } => usize::from(*num_channels),
        };
        let has_alpha = image.has_alpha();
        let channels = colours + usize::from(has_alpha);
        // Coefficients and samples are floats, before they are bytes.
        job.admit(width, height, 9 * channels as u64 + 3)?;
        let mut context = DecoderContext::default();
        let decoded = image.decode(&mut context).map_err(|error| failed(&error))?;
        let samples = decoded.data_u8();
        let mut pixels = RgbImage::new(width, height);
        if samples.len() < channels * width as usize * height as usize {
            return Err(Failure::Damaged("too few pixels".into()));
        }
        for (pixel, from) in pixels.pixels_mut().zip(samples.chunks_exact(channels)) {
            pixel.0 = match (colours, from) {
                (1, &[grey]) => [grey; 3],
                (1, &[grey, a]) => [colour::over_white_8(grey, a); 3],
                (3, &[r, g, b]) => [r, g, b],
                (3, &[r, g, b, a]) => [r, g, b].map(|value| colour::over_white_8(value, a)),
                (4, &[c, m, y, k, ..]) => [c, m, y].map(|ink| colour::of_ink(ink, k)),
                _ => return Err(Failure::Unsupported(format!("JPEG 2000 of {colours} colours"))),
            };
        }
        Ok(Stored::new(pixels, Some(Orientation::NoTransforms)))
    }
}
