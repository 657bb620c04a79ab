//! `preprocessor_config.json`: how photos become pixels.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::{CheckpointError, read_json};
use super::config::Section;
use crate::image::{PreprocessConfig, ResizeFilter, ResizeMode};
use crate::model::CaptionerConfig;

/// What an image processor does where its file does not say.
struct Usual {
    /// Scaled to this before the middle is cut out; without a cut, none.
    crop_from: Option<usize>,
    /// Whether `size` as a number is the shorter edge, not both sides.
    shortest_edge: bool,
    resample: usize,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Usual {
    /// Of `image_processor_type`, or the `feature_extractor_type` of old.
    fn of(kind: &str) -> Self {
        let vit = Self {
            crop_from: None,
            shortest_edge: false,
            resample: 2,
            mean: [0.5; 3],
            std: [0.5; 3],
        };
        let clip = Self {
            resample: 3,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            ..vit
        };
        match kind {
            kind if kind.starts_with("DeiT") => Self { crop_from: Some(256), resample: 3, ..vit },
            kind if kind.starts_with("CLIP") => {
                Self { crop_from: Some(224), shortest_edge: true, ..clip }
            }
            kind if kind.starts_with("Blip") => clip,
            _ => vit,
        }
    }
}

/// What `size` says.
enum Size {
    /// Both sides, `[height, width]`.
    Sides([usize; 2]),
    /// The shorter side; the other in proportion.
    ShortestEdge(usize),
}

/// Reads `preprocessor_config.json`, or what newer folders have in `processor_config.json`; the file
/// that was read comes with it.
pub(super) fn read(
    folder: &Path,
    model: &CaptionerConfig,
) -> Result<(PathBuf, PreprocessConfig), CheckpointError> {
    let file = folder.join("preprocessor_config.json");
    let newer = folder.join("processor_config.json");
    if file.is_file() || !newer.is_file() {
        let fields: Map<String, Value> = read_json(&file)?;
        let config = config(&Section { file: &file, path: String::new(), fields: &fields }, model)?;
        return Ok((file, config));
    }
    let fields: Map<String, Value> = read_json(&newer)?;
    let all = Section { file: &newer, path: String::new(), fields: &fields };
    let config = config(&all.section("image_processor")?, model)?;
    Ok((newer, config))
}

fn config(section: &Section, model: &CaptionerConfig) -> Result<PreprocessConfig, CheckpointError> {
    for key in ["do_resize", "do_rescale", "do_normalize"] {
        if !section.flag(key)?.unwrap_or(true) {
            return Err(section.wrong(key, "true"));
        }
    }
    let factor = section.number("rescale_factor")?.unwrap_or(1.0 / 255.0);
    if (factor - 1.0 / 255.0).abs() > 1e-9 {
        return Err(section.wrong("rescale_factor", "1/255"));
    }
    let kind = match section.text("image_processor_type")? {
        Some(kind) => Some(kind),
        None => section.text("feature_extractor_type")?,
    };
    let usual = Usual::of(kind.unwrap_or_default());
    let encoder = [model.encoder.image_height, model.encoder.image_width];
    let size = match size(section, "size", usual.shortest_edge)? {
        Some(size) => size,
        None => Size::Sides(usual.crop_from.map_or(encoder, |side| [side; 2])),
    };
    let crops = section.flag("do_center_crop")?.unwrap_or(usual.crop_from.is_some());
    let ([height, width], crop_from, resize) = if crops {
        let crop = size_of_crop(section)?.unwrap_or([224; 2]);
        let (from, resize) = match size {
            Size::Sides(from) => (from, ResizeMode::Squash),
            Size::ShortestEdge(side) => ([side; 2], ResizeMode::Crop),
        };
        if from[0] < crop[0] || from[1] < crop[1] {
            let problem = format!(
                "`{}crop_size` is {}×{} of what is resized to {}×{}; expected no more than that",
                section.path, crop[1], crop[0], from[1], from[0]
            );
            return Err(section.invalid(problem));
        }
        // A crop of the whole does nothing.
        let whole = resize == ResizeMode::Squash && from == crop;
        (crop, (!whole).then_some(from), resize)
    } else {
        match size {
            Size::Sides(sides) => (sides, None, ResizeMode::Squash),
            Size::ShortestEdge(_) => {
                let expected = "`height` and `width`, or `do_center_crop` with it";
                return Err(section.wrong("size", expected));
            }
        }
    };
    // Pillow's numbers.
    let filter = match section.count("resample")?.unwrap_or(usual.resample) {
        1 => ResizeFilter::Lanczos,
        2 => ResizeFilter::Bilinear,
        3 => ResizeFilter::Bicubic,
        _ => return Err(section.wrong("resample", "1 (Lanczos), 2 (bilinear) or 3 (bicubic)")),
    };
    Ok(PreprocessConfig {
        height,
        width,
        resize,
        crop_from,
        filter,
        mean: section.triple("image_mean")?.unwrap_or(usual.mean),
        std: section.triple("image_std")?.unwrap_or(usual.std),
    })
}

fn size_of_crop(section: &Section) -> Result<Option<[usize; 2]>, CheckpointError> {
    match size(section, "crop_size", false)? {
        Some(Size::Sides(sides)) => Ok(Some(sides)),
        Some(Size::ShortestEdge(_)) => Err(section.wrong("crop_size", "`height` and `width`")),
        None => Ok(None),
    }
}

/// An object, a list of height and width, or a number.
fn size(
    section: &Section,
    key: &str,
    shortest_edge: bool,
) -> Result<Option<Size>, CheckpointError> {
    match section.get(key) {
        None => Ok(None),
        Some(Value::Object(_)) => {
            let size = section.section(key)?;
            let sides = (size.count("height")?, size.count("width")?);
            match (sides, size.count("shortest_edge")?) {
                ((Some(height), Some(width)), None) => Ok(Some(Size::Sides([height, width]))),
                ((None, None), Some(side)) if size.get("longest_edge").is_none() => {
                    Ok(Some(Size::ShortestEdge(side)))
                }
                _ => Err(section.wrong(key, "`height` and `width`, or `shortest_edge`")),
            }
        }
        Some(Value::Array(_)) => Ok(Some(Size::Sides(section.pair(key)?))),
        Some(_) => Ok(section.count(key)?.map(|side| match shortest_edge {
            true => Size::ShortestEdge(side),
            false => Size::Sides([side; 2]),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<PreprocessConfig, String> {
        let fields: Map<String, Value> = serde_json::from_str(text).unwrap();
        let section = Section { file: Path::new("p.json"), path: String::new(), fields: &fields };
        config(&section, &CaptionerConfig::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn sizes_in_every_form() {
        let squash = PreprocessConfig { filter: ResizeFilter::Bilinear, ..Default::default() };
        assert_eq!(of("{}"), Ok(squash.clone()));
        assert_eq!(of(r#"{"size": 224, "resample": 2}"#), Ok(squash.clone()));
        assert_eq!(of(r#"{"size": [224, 224]}"#), Ok(squash.clone()));
        let wide = PreprocessConfig { height: 32, width: 64, ..squash.clone() };
        assert_eq!(of(r#"{"size": {"height": 32, "width": 64}}"#), Ok(wide));
        // facebook/deit-base-distilled-patch16-224, and the same said by newer versions.
        let deit = PreprocessConfig {
            crop_from: Some([256; 2]),
            filter: ResizeFilter::Bicubic,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            ..squash.clone()
        };
        let colours = r#""image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]"#;
        let old = r#""crop_size": 224, "do_center_crop": true, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "DeiTFeatureExtractor", "resample": 3, "size": 256"#;
        assert_eq!(of(&format!("{{{old}, {colours}}}")), Ok(deit.clone()));
        let new = r#""crop_size": {"height": 224, "width": 224}, "size": {"height": 256, "width": 256},
            "image_processor_type": "DeiTImageProcessorFast""#;
        assert_eq!(of(&format!("{{{new}, {colours}}}")), Ok(deit.clone()));
        let edge = r#""crop_size": {"height": 224, "width": 224}, "size": {"shortest_edge": 256},
            "do_center_crop": true, "resample": 3"#;
        let edge = of(&format!("{{{edge}, {colours}}}"));
        assert_eq!(edge, Ok(PreprocessConfig { resize: ResizeMode::Crop, ..deit }));
        let clip = of(r#"{"image_processor_type": "CLIPImageProcessor", "size": 224}"#).unwrap();
        assert_eq!((clip.resize, clip.crop_from), (ResizeMode::Crop, Some([224; 2])));
        assert_eq!(clip.mean[0], 0.481_454_66);
    }

    #[test]
    fn what_cannot_be_done_is_said_by_its_key() {
        for (text, says) in [
            (r#"{"size": {"shortest_edge": 256}}"#, "`size` is"),
            (r#"{"size": {"longest_edge": 256}}"#, "`size` is"),
            (r#"{"size": 200, "do_center_crop": true}"#, "`crop_size` is 224×224"),
            (r#"{"resample": 4}"#, "`resample` is 4"),
            (r#"{"do_rescale": false}"#, "`do_rescale` is false; expected true"),
            (r#"{"size": "large"}"#, "`size` is \"large\""),
        ] {
            let error = of(text).unwrap_err();
            assert!(error.starts_with("p.json: ") && error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_processor_config_holds_it_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("processor_config.json");
        std::fs::write(&file, r#"{"image_processor": {"size": {"height": 64, "width": 64}}}"#)
            .unwrap();
        let (from, config) = read(folder.path(), &CaptionerConfig::default()).unwrap();
        assert_eq!((from, config.height), (file, 64));
        std::fs::write(folder.path().join("preprocessor_config.json"), r#"{"size": 32}"#).unwrap();
        assert_eq!(read(folder.path(), &CaptionerConfig::default()).unwrap().1.height, 32);
    }
}
