//! Which region each word came from: attention traces as JSON and as a picture.

pub mod colour;
pub mod pointing;
pub mod sheet;

use ::image::RgbImage;
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::Serialize;

use crate::caption::{CaptionConfig, ModelInput, caption_inputs};
use crate::checkpoint::Checkpoint;
use crate::generate::GenerateError;
use crate::model::AttentionTrace;
use crate::plural::counted;
use crate::text::TextError;

/// Why an inspection failed.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The caption could not be decoded.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A given caption cannot be tokenised.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A given caption has no words, or more tokens than the model has positions.
    #[error("the caption has {}; this model can read 1 to {most}", counted(*tokens, "token"))]
    Length {
        /// Its tokens.
        tokens: usize,
        /// Most tokens that the model can read.
        most: usize,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Cross-attention of one word over the patch grid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WordAttention {
    /// The word as it stands in the caption.
    pub word: String,
    /// Its token ids.
    pub token_ids: Vec<u32>,
    /// Product of the probabilities of its tokens given what stands before, in `[0, 1]`.
    pub probability: f32,
    /// Mean over layers and heads (and over the word's tokens), row by row of the grid.
    pub mean: Vec<f32>,
    /// Attention to positions that are no patch (a class token), mean over layers and heads.
    pub elsewhere: f32,
    /// `layers[layer][head]`: the grid of one head, mean over the word's tokens.
    pub layers: Vec<Vec<Vec<f32>>>,
}

impl WordAttention {
    /// Mean over the heads of one layer.
    pub fn layer_mean(&self, layer: usize) -> Vec<f32> {
        let heads = &self.layers[layer];
        let mut mean = vec![0.0; self.mean.len()];
        for head in heads {
            mean.iter_mut().zip(head).for_each(|(sum, x)| *sum += x / heads.len() as f32);
        }
        mean
    }
}

/// The attention of a whole caption over one image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// The caption.
    pub caption: String,
    /// Whether the model wrote it (else it was given).
    pub generated: bool,
    /// Sum of the log-probabilities of its tokens, end token included.
    pub log_probability: f32,
    /// Rows of the patch grid.
    pub rows: usize,
    /// Columns of the patch grid.
    pub cols: usize,
    /// The part of the photo that the grid covers, `[x0, y0, x1, y1]` in photo pixels; it exceeds
    /// the photo where the image was padded.
    pub region: [f32; 4],
    /// Each word with its attention.
    pub words: Vec<WordAttention>,
}

/// Captions an image, or takes the caption given, and reads the cross-attention of every word.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(
    checkpoint: &Checkpoint,
    device: &Device,
    photo: &RgbImage,
    text: Option<&str>,
    config: &CaptionConfig,
) -> Result<Inspection, InspectError> {
    let special = checkpoint.tokenizer.special_tokens();
    let ids: Vec<u32> = match text {
        Some(text) => {
            let mut ids = vec![special.bos];
            ids.extend(checkpoint.tokenizer.encode(text)?);
            ids.push(special.eos);
            ids
        }
        None => {
            let input = ModelInput::new(&checkpoint.preprocess, photo);
            let captions = caption_inputs(checkpoint, device, &[input], config)?;
            let first = captions.into_iter().flatten().next();
            first.map(|caption| caption.token_ids).unwrap_or_default()
        }
    };
    let inspection = inspect_tokens(checkpoint, device, photo, &ids)?;
    Ok(Inspection { generated: text.is_none(), ..inspection })
}

/// Reads the cross-attention of every word of a caption that is given as token ids, from the begin
/// token to the end token (if it came).
///
/// The weights at a token are those of the step that *predicts* it: the position before it.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect_tokens(
    checkpoint: &Checkpoint,
    device: &Device,
    photo: &RgbImage,
    ids: &[u32],
) -> Result<Inspection, InspectError> {
    let preprocess = &checkpoint.preprocess;
    let most = checkpoint.model.config().decoder.max_positions;
    if ids.len() < 2 || ids.len() - 1 > most {
        return Err(InspectError::Length { tokens: ids.len().saturating_sub(1), most });
    }
    let pixels = preprocess.apply(photo);
    let shape = [1, 3, preprocess.height, preprocess.width];
    let memory = checkpoint.model.encode(Tensor::from_data(TensorData::new(pixels, shape), device));
    let inputs: Vec<i32> = ids[..ids.len() - 1].iter().map(|&id| id as i32).collect();
    let seq = inputs.len();
    let inputs: Tensor<2, Int> = Tensor::from_data(TensorData::new(inputs, [1, seq]), device);
    let mut trace = AttentionTrace::new();
    let logits = checkpoint.model.decode_with_trace(inputs, memory, &mut trace);
    let log_probabilities = token_log_probabilities(logits, &ids[1..])?;
    let maps = Maps::read(&trace)?;
    let encoder = &checkpoint.model.config().encoder;
    let [rows, cols] = encoder.grid();
    let words = checkpoint
        .tokenizer
        .words(ids)
        .into_iter()
        .map(|word| {
            let steps: Vec<usize> = word.tokens.clone().map(|at| at - 1).collect();
            let layers = maps.word(&steps, encoder.num_prefix());
            let count: usize = layers.iter().map(Vec::len).sum();
            let mut mean = vec![0.0; rows * cols];
            for head in layers.iter().flatten() {
                mean.iter_mut().zip(head).for_each(|(sum, x)| *sum += x / count as f32);
            }
            let probability: f32 = steps.iter().map(|&step| log_probabilities[step]).sum();
            WordAttention {
                word: word.text,
                token_ids: ids[word.tokens].to_vec(),
                probability: probability.exp(),
                elsewhere: (1.0 - mean.iter().sum::<f32>()).max(0.0),
                mean,
                layers,
            }
        })
        .collect();
    let visible = preprocess.placement(photo.width(), photo.height()).visible();
    Ok(Inspection {
        caption: checkpoint.tokenizer.decode(ids),
        generated: true,
        log_probability: log_probabilities.iter().sum(),
        rows,
        cols,
        region: [visible.left, visible.top, visible.right, visible.bottom].map(|x| x as f32),
        words,
    })
}

fn token_log_probabilities(logits: Tensor<3>, targets: &[u32]) -> Result<Vec<f32>, InspectError> {
    let [_, seq, vocab] = logits.dims();
    let rows = burn::tensor::activation::log_softmax(logits.reshape([seq, vocab]), 1);
    let rows =
        rows.try_into_vec_as::<f32>().map_err(|error| InspectError::Device(error.to_string()))?;
    Ok(rows.chunks(vocab).zip(targets).map(|(row, &id)| row[id as usize]).collect())
}

/// Cross-attention weights of one sequence on the host.
struct Maps {
    /// A layer: `[heads, seq, positions]`.
    layers: Vec<Vec<f32>>,
    heads: usize,
    seq: usize,
    positions: usize,
}

impl Maps {
    fn read(trace: &AttentionTrace) -> Result<Self, InspectError> {
        let mut layers = Vec::new();
        let (mut heads, mut seq, mut positions) = (0, 0, 0);
        for layer in &trace.cross_attention {
            [_, heads, seq, positions] = layer.weights.dims();
            let values = layer
                .weights
                .clone()
                .try_into_vec_as::<f32>()
                .map_err(|error| InspectError::Device(error.to_string()))?;
            layers.push(values);
        }
        Ok(Self { layers, heads, seq, positions })
    }

    /// `[layer][head]` grids, mean over `steps`, without the first `prefix` positions.
    fn word(&self, steps: &[usize], prefix: usize) -> Vec<Vec<Vec<f32>>> {
        self.layers
            .iter()
            .map(|layer| {
                (0..self.heads)
                    .map(|head| {
                        let mut grid = vec![0.0; self.positions - prefix];
                        for &step in steps {
                            let start = (head * self.seq + step) * self.positions;
                            let row = &layer[start + prefix..start + self.positions];
                            grid.iter_mut()
                                .zip(row)
                                .for_each(|(sum, x)| *sum += x / steps.len() as f32);
                        }
                        grid
                    })
                    .collect()
            })
            .collect()
    }
}
