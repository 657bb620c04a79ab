//! `processor_config.json` and `preprocessor_config.json`: how photos become pixels.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::encoder::{IMAGENET_MEAN, IMAGENET_STD};
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
    colours: Colours,
}

/// The image processors that are read, for errors.
const KNOWN: &str = "ViT, DeiT, Blip, CLIP or Siglip";

impl Usual {
    /// Of `image_processor_type`, or the `feature_extractor_type` of old; without either, what BLIP and
    /// ViT have.
    fn of_section(section: &Section, model: &CaptionerConfig) -> Result<Self, CheckpointError> {
        let (key, kind) = match section.text("image_processor_type")? {
            Some(kind) => ("image_processor_type", Some(kind)),
            None => ("feature_extractor_type", section.text("feature_extractor_type")?),
        };
        let Some(kind) = kind else {
            let distilled = model.encoder.prefix_tokens == 2;
            return Ok(Self::of(if distilled { "DeiT" } else { "ViT" }).unwrap_or(Self::vit()));
        };
        // One class a backend: ViTImageProcessorFast, ViTImageProcessorPil.
        let family =
            ["Fast", "Pil"].iter().fold(kind, |kind, end| kind.strip_suffix(end).unwrap_or(kind));
        let family = family
            .strip_suffix("ImageProcessor")
            .or_else(|| family.strip_suffix("FeatureExtractor"))
            .unwrap_or(family);
        let expected = format!("the image processor of {KNOWN}");
        Self::of(family).ok_or_else(|| section.wrong(key, &expected))
    }

    fn vit() -> Self {
        let colours = Colours { mean: [0.5; 3], std: [0.5; 3], filter: ResizeFilter::Bilinear };
        Self { crop_from: None, shortest_edge: false, colours }
    }

    fn of(family: &str) -> Option<Self> {
        let vit = Self::vit();
        let bicubic = Colours { filter: ResizeFilter::Bicubic, ..vit.colours };
        let clip = Colours {
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            ..bicubic
        };
        let imagenet = Colours { mean: IMAGENET_MEAN, std: IMAGENET_STD, ..bicubic };
        Some(match family {
            "ViT" => vit,
            "DeiT" => Self { crop_from: Some(256), colours: imagenet, ..vit },
            "CLIP" => Self { crop_from: Some(224), shortest_edge: true, colours: clip },
            "Blip" => Self { colours: clip, ..vit },
            "Siglip" => Self { colours: bicubic, ..vit },
            _ => return None,
        })
    }
}

/// What `size` says.
enum Size {
    /// Both sides, `[height, width]`.
    Sides([usize; 2]),
    /// The shorter side; the other in proportion.
    ShortestEdge(usize),
}

/// The files that say how photos become pixels, in the order of transformers 5: its own, which holds an
/// image processor among others, and the one of before.
const FILES: [(&str, Option<&str>); 2] =
    [("processor_config.json", Some("image_processor")), ("preprocessor_config.json", None)];

/// Where an image processor's settings stand: the file, the keys above them, and themselves.
type Settings = (PathBuf, &'static str, Map<String, Value>);

/// The image processor of a folder; nothing where no file has one.
fn image_processor(folder: &Path) -> Result<Option<Settings>, CheckpointError> {
    for (name, section) in FILES {
        let file = folder.join(name);
        if !file.is_file() {
            continue;
        }
        let mut fields: Map<String, Value> = read_json(&file)?;
        // Earlier versions put the whole in either file.
        match (section.or(Some("image_processor")), section.is_some()) {
            (Some(key), _) if matches!(fields.get(key), Some(Value::Object(_))) => {
                if let Some(Value::Object(inner)) = fields.remove(key) {
                    return Ok(Some((file, "image_processor.", inner)));
                }
            }
            // The class of a processor alone.
            (_, true) => {}
            (_, false) => return Ok(Some((file, "", fields))),
        }
    }
    Ok(None)
}

/// How an encoder wants its pixels, whatever their number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Colours {
    pub mean: [f32; 3],
    pub std: [f32; 3],
    pub filter: ResizeFilter,
}

/// Reads what a folder's image processor says of that; `usual` where it says nothing.
pub(super) fn colours(folder: &Path, usual: Colours) -> Result<Colours, CheckpointError> {
    let Some((file, path, fields)) = image_processor(folder)? else { return Ok(usual) };
    Colours::read(&Section { file: &file, path: path.into(), fields: &fields }, usual)
}

impl Colours {
    /// `(value · rescale_factor − image_mean) / image_std`, as a mean and a deviation on a scale where
    /// white is 1.
    fn read(section: &Section, usual: Self) -> Result<Self, CheckpointError> {
        let is_on = |key| Ok::<bool, CheckpointError>(section.flag(key)?.unwrap_or(true));
        let white = match is_on("do_rescale")? {
            true => {
                let factor = section.number("rescale_factor")?.unwrap_or(1.0 / 255.0);
                if !(factor.is_finite() && factor > 0.0) {
                    return Err(section.wrong("rescale_factor", "a number above 0"));
                }
                factor * 255.0
            }
            false => 255.0,
        };
        let (mean, std) = match is_on("do_normalize")? {
            true => (
                section.triple("image_mean")?.unwrap_or(usual.mean),
                section.triple("image_std")?.unwrap_or(usual.std),
            ),
            false => ([0.0; 3], [1.0; 3]),
        };
        let scaled = |values: [f32; 3]| match (white - 1.0).abs() < 1e-9 {
            true => values,
            false => values.map(|value| (f64::from(value) / white) as f32),
        };
        // Pillow's numbers.
        let filter = match section.count("resample")? {
            None => usual.filter,
            Some(0) => ResizeFilter::Nearest,
            Some(1) => ResizeFilter::Lanczos,
            Some(2) => ResizeFilter::Bilinear,
            Some(3) => ResizeFilter::Bicubic,
            Some(4) => ResizeFilter::Box,
            Some(5) => ResizeFilter::Hamming,
            Some(_) => {
                let expected = "0 (nearest), 1 (Lanczos), 2 (bilinear), 3 (bicubic), 4 (box) or \
                                5 (Hamming)";
                return Err(section.wrong("resample", expected));
            }
        };
        Ok(Self { mean: scaled(mean), std: scaled(std), filter })
    }
}

/// Refuses an image processor that there is not, before anything large is read.
pub(super) fn check(folder: &Path) -> Result<(), CheckpointError> {
    if let Some((file, path, fields)) = image_processor(folder)? {
        let section = Section { file: &file, path: path.into(), fields: &fields };
        Usual::of_section(&section, &CaptionerConfig::default())?;
    }
    Ok(())
}

/// Reads how photos become pixels; the file that was read comes with it.
pub(super) fn read(
    folder: &Path,
    model: &CaptionerConfig,
) -> Result<(PathBuf, PreprocessConfig), CheckpointError> {
    let Some((file, path, fields)) = image_processor(folder)? else {
        let file = folder.join("preprocessor_config.json");
        let problem = "is not here, nor processor_config.json with an `image_processor`: it says how photos \
                       become pixels";
        return Err(CheckpointError::Invalid { file, problem: problem.into() });
    };
    let section = Section { file: &file, path: path.into(), fields: &fields };
    let config = config(&section, model)?;
    Ok((file, config))
}

/// What we do not do, where a file asks for it.
const NEVER: [&str; 5] =
    ["do_pad", "do_thumbnail", "do_align_long_axis", "do_flip_channel_order", "do_grayscale"];

fn config(section: &Section, model: &CaptionerConfig) -> Result<PreprocessConfig, CheckpointError> {
    for key in NEVER {
        if section.flag(key)?.unwrap_or(false) {
            return Err(section.wrong(key, "false"));
        }
    }
    let usual = Usual::of_section(section, model)?;
    let encoder = [model.encoder.image_height, model.encoder.image_width];
    let mut size = match size(section, "size", usual.shortest_edge)? {
        Some(size) => size,
        None => Size::Sides(usual.crop_from.map_or(encoder, |side| [side; 2])),
    };
    let crops = section.flag("do_center_crop")?.unwrap_or(usual.crop_from.is_some());
    if !section.flag("do_resize")?.unwrap_or(true) {
        if crops {
            return Err(section.wrong("do_resize", "true where the middle is cut out"));
        }
        // Photos are of the model's size already, or no model could read them.
        size = Size::Sides(encoder);
    }
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
    let Colours { mean, std, filter } = Colours::read(section, usual.colours)?;
    Ok(PreprocessConfig { height, width, resize, crop_from, filter, mean, std })
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
            (r#"{"resample": 6}"#, "`resample` is 6"),
            (r#"{"rescale_factor": 0}"#, "`rescale_factor` is 0"),
            (r#"{"do_pad": true}"#, "`do_pad` is true; expected false"),
            (r#"{"do_resize": false, "do_center_crop": true}"#, "`do_resize` is false"),
            (r#"{"image_mean": [0.5, 0.5]}"#, "`image_mean` is [0.5,0.5]"),
            (r#"{"image_processor_type": "DonutImageProcessor"}"#, "DonutImageProcessor"),
            (r#"{"image_processor_type": "BitImageProcessorFast"}"#, "BitImageProcessorFast"),
            (r#"{"feature_extractor_type": "LayoutLMv3FeatureExtractor"}"#, "LayoutLMv3"),
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
        assert_eq!((from, config.height), (file.clone(), 64));
        // It comes first, as in transformers 5.
        let old = folder.path().join("preprocessor_config.json");
        std::fs::write(&old, r#"{"size": 32}"#).unwrap();
        let model = CaptionerConfig::default();
        assert_eq!(read(folder.path(), &model).unwrap().1.height, 64);
        // That of versions before says nothing but a class.
        std::fs::write(&file, r#"{"processor_class": "BlipProcessor"}"#).unwrap();
        assert_eq!(read(folder.path(), &model).unwrap().1.height, 32);
        std::fs::remove_file(&old).unwrap();
        let absent = read(folder.path(), &model).unwrap_err().to_string();
        assert!(absent.contains("preprocessor_config.json: is not here"), "{absent}");
        // An encoder's colours come from the same place.
        let usual = Colours { mean: [0.1; 3], std: [0.2; 3], filter: ResizeFilter::Bicubic };
        assert_eq!(colours(folder.path(), usual).unwrap(), usual);
        std::fs::write(&file, r#"{"image_processor": {"image_mean": 0.25}}"#).unwrap();
        assert_eq!(colours(folder.path(), usual).unwrap(), Colours { mean: [0.25; 3], ..usual });
    }

    #[test]
    fn what_is_done_to_values_is_one_mean_and_one_deviation() {
        // What transformers computes of the value 200, and ours of it.
        let ours = |text: &str| {
            let PreprocessConfig { mean, std, .. } = of(text).unwrap();
            (200.0 / 255.0 - mean[0]) / std[0]
        };
        for (text, expected) in [
            (r#"{"do_normalize": false}"#, 200.0 / 255.0),
            (r#"{"do_rescale": false}"#, (200.0 - 0.5) / 0.5),
            (r#"{"do_rescale": false, "do_normalize": false}"#, 200.0),
            (r#"{"rescale_factor": 0.01, "image_mean": 0.4, "image_std": 0.2}"#, (2.0 - 0.4) / 0.2),
            (r#"{"image_mean": 0.4, "image_std": [0.2, 0.2, 0.2]}"#, (200.0 / 255.0 - 0.4) / 0.2),
        ] {
            let found = ours(text);
            assert!((found - expected).abs() < 1e-5 * expected, "{text}: {found} {expected}");
        }
        let filter = |number: usize| of(&format!(r#"{{"resample": {number}}}"#)).unwrap().filter;
        assert_eq!(filter(0), ResizeFilter::Nearest);
        assert_eq!(filter(4), ResizeFilter::Box);
        assert_eq!(filter(5), ResizeFilter::Hamming);
        assert_eq!(of(r#"{"do_resize": false, "size": 100}"#).unwrap().height, 224);
        let siglip = of(r#"{"image_processor_type": "SiglipImageProcessorFast"}"#).unwrap();
        assert_eq!((siglip.filter, siglip.mean), (ResizeFilter::Bicubic, [0.5; 3]));
    }
}
