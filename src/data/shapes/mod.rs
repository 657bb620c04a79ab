//! Scenes of coloured shapes with captions and boxes: the data set that ships by recipe.
//!
//! [`generate`] writes a Hugging Face imagefolder of small pictures of one to three coloured
//! shapes, five captions each, and for every caption word that names an object or its colour the
//! object's box. [`check_caption`] reads any caption of the same grammar and says whether it is
//! true of a scene; [`grounded_words`] says where its words point.
//!
//! Every byte follows from the [`ShapesConfig`]: all drawing and all randomness is integer
//! arithmetic over ChaCha8, so that two machines always write the same files.
mod checker;
mod config;
mod draw;
mod draws;
mod error;
mod grammar;
mod parse;
mod scene;
#[cfg(test)]
mod tests;
mod write;

pub use checker::{Verdict, check_caption, grounded_words, related_words};
pub use config::{ShapesConfig, SplitCounts};
pub use draw::{draw, encode_png};
pub use error::ShapesError;
pub use grammar::{CAPTIONS_PER_IMAGE, Caption, GroundedWord, RelatedWord, captions};
pub use scene::{Colour, Place, Relation, Scene, SceneObject, Shape, Size};
pub use write::{Summary, generate};
