//! How many photos are captioned together where nobody says: as many as are worth it on the device, and
//! fit into its memory.

use super::CaptionConfig;
use crate::checkpoint::Checkpoint;
use crate::image::MemoryBudget;

/// Beyond this a CPU gains nothing more, and the first captions come later.
const MOST_ON_CPU: usize = 16;
/// A GPU wants more rows to be busy.
const MOST_ON_GPU: usize = 64;
/// Of a GPU's memory, whose size wgpu does not tell, what captions may take beside the weights.
const ON_GPU: u64 = 2 << 30;

/// Photos of a batch, and why so many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSize {
    /// At least 1.
    pub photos: usize,
    /// For people: `16 photos a batch, about 1.2 MB each`.
    pub reason: String,
}

/// Chooses a batch size for decoding with `config`. `memory`: bytes that the batch may take; `None` for what
/// suits the device: half of what decoding photos may take on a CPU (`is_cpu`), 2 GiB on a GPU.
pub fn suitable_batch_size(
    checkpoint: &Checkpoint,
    config: &CaptionConfig,
    is_cpu: bool,
    memory: Option<u64>,
) -> BatchSize {
    let each = bytes_of_a_photo(checkpoint, config);
    let usual = if is_cpu { MemoryBudget::default().total() / 2 } else { ON_GPU };
    let room = memory.unwrap_or(usual);
    let most = if is_cpu { MOST_ON_CPU } else { MOST_ON_GPU };
    let photos = usize::try_from(room / each.max(1)).unwrap_or(usize::MAX).clamp(1, most);
    let why = if photos < most { ": no more fit" } else { "" };
    let reason = format!("{photos} photos a batch, about {:.1} MB each{why}", each as f64 / 1e6);
    BatchSize { photos, reason }
}

/// What a photo takes at the most while it is encoded or decoded, in f32.
fn bytes_of_a_photo(checkpoint: &Checkpoint, config: &CaptionConfig) -> u64 {
    let model = checkpoint.model.config();
    let (encoder, decoder) = (&model.encoder, &model.decoder);
    let preprocess = &checkpoint.preprocess;
    let pixels = 3 * preprocess.height * preprocess.width;
    let patch = encoder.patch_size.max(1);
    let tokens = (preprocess.height / patch) * (preprocess.width / patch) + encoder.prefix_tokens;
    // Of a layer: the stream, its norm, queries, keys, values, what attention gives; the hidden layer twice.
    let encoding = tokens * (6 * encoder.d_model + 2 * encoder.d_ff);
    let rows = config.generate.rows_per_image();
    let length =
        (config.prompt.ids.len() + 1 + config.generate.max_new_tokens).min(decoder.max_positions);
    let caches = 2 * decoder.num_layers * decoder.d_model * (tokens + rows * length);
    let logits = 3 * rows * decoder.vocab_size;
    4 * (pixels + encoding.max(tokens * encoder.d_model + caches + logits)) as u64
}
