//! `--image-size`: a model run on images of another size than it was trained on.

use clap::Args;

use crate::checkpoint::LoadOptions;

/// The size that images are brought to.
#[derive(Debug, Args)]
pub(super) struct ImageSizeArgs {
    /// Pixels that photos are brought to, a side or height x width, multiples of the patch size;
    /// learned positions are resized to them; twice the side takes four times the encoder's time and
    /// memory, or more [default: the model's]
    #[arg(long, value_name = "N|HxW", value_parser = parse)]
    image_size: Option<Sides>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sides {
    height: usize,
    width: usize,
}

impl ImageSizeArgs {
    /// How to read the model.
    pub(super) fn load_options(&self) -> LoadOptions {
        let image_size = self.image_size.map(|sides| [sides.height, sides.width]);
        LoadOptions { image_size }
    }
}

fn parse(text: &str) -> Result<Sides, String> {
    let side = |text: &str| match text.trim().parse::<usize>() {
        Ok(side) if side > 0 => Ok(side),
        _ => Err("expected pixels: 384, or height x width as in 384x512".to_string()),
    };
    let (height, width) = text.split_once(['x', 'X', '×']).unwrap_or((text, text));
    Ok(Sides { height: side(height)?, width: side(width)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_or_both() {
        assert_eq!(parse("384"), Ok(Sides { height: 384, width: 384 }));
        assert_eq!(parse("224x160"), Ok(Sides { height: 224, width: 160 }));
        for wrong in ["", "0", "x", "3x", "-5", "2x2x2", "large"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
