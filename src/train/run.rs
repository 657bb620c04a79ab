//! The loop itself. It tells an [`Observer`] what happens and asks it whether to stop; it never
//! prints.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::card::card;
use super::config::{SelectBy, TrainConfig};
use super::curve::curves_svg;
use super::event::{Event, Observer, Outcome, Sample};
use super::features;
use super::folder::{self, AVERAGE, BEST, CURVE, Found, LAST, RunFolder};
use super::init::Start;
use super::learner::Learner;
use super::metrics::{Metric, Metrics};
use super::plan::Plan;
use super::score;
use super::scst::{ScstConfig, SelfCritical};
use super::state::{self, Change, RunState};
use super::validate::{read_scalar, validate};
use super::{TrainError, Validation};
use crate::checkpoint::average::mean_of_files;
use crate::checkpoint::{atomic, tensors};
use crate::data::{
    Example, LoaderConfig, SkippedImage, SkippedImages, TrainLoader, is_too_many_bad, mix,
};
use crate::model::Captioner;

/// Trains as `config` says, on `device` (autodiff is added here). With `resume` a run in
/// `config.output` goes on from its last checkpoint. `file` is named in errors.
///
/// # Errors
/// Bad configs and data before anything is written; a loss that is not finite, with the last good
/// checkpoint named; a failing device or disk.
pub fn train(
    config: &TrainConfig,
    file: &Path,
    device: &Device,
    bucket: usize,
    resume: bool,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let (held, old) = run_there(&config.output, resume)?;
    let mut config = config.clone();
    let mut other_init = None;
    let start = match &old {
        Some((last, old)) => {
            let given = std::mem::replace(&mut config.init, old.config.init.clone());
            other_init = (!given.names_the_same(&config.init)).then_some(given);
            Start::resumed(last, old)?
        }
        None => Start::new(&config)?,
    };
    let plan = Plan::new(&config, file, &start)?;
    let device = device.clone().autodiff();
    let mut loader = plan.loader(bucket);
    let (mut learner, mut model) =
        Learner::new(&plan.config, start, &plan.trained, &loader, &device)?;
    let folder = match held {
        Some(held) => held,
        None => claim_new(&config.output)?,
    };
    let mut state = first_state(&plan);
    let (mut changed, mut lost_best) = (Vec::new(), None);
    if let Some((last, old)) = old {
        changed = state::changed_settings(&old.config, &plan.config);
        state::check_same(&last, &old, &plan)?;
        model = state::restore(&last, model, &mut learner.optimizer, &old, &device)?;
        state = RunState { config: plan.config.clone(), ..old };
        if !changed.is_empty() {
            state.changes.push(Change { step: state.step, settings: changed.clone() });
        }
        if !folder.has_best() {
            lost_best = state.forget_best();
        }
    }
    let mut unreadable = SkippedImages::default();
    if let Some(folder) = &plan.config.data.cache_features {
        let mut progress = |new, done, total| {
            observer.event(&Event::Features { new, done, total });
            !observer.stop_requested()
        };
        let computed = features::compute(&plan, &model, folder, &device, &mut progress)?;
        (loader.features, unreadable) = (Some(computed.0), computed.1);
        learner.gradients.read_as(&loader);
    }
    // What a killed run had gone further is forgotten.
    folder::forget_recent_after(&plan.config.output, state.step);
    let metrics = Metrics::open(&plan.config.output, state.step)?;
    let accumulation = plan.config.train.accumulation as u64;
    let mut run = Run {
        folder,
        loader_config: loader.clone(),
        loader: TrainLoader::new(plan.train.clone(), loader, state.step * accumulation),
        critic: None,
        plan: &plan,
        learner,
        state,
        metrics,
        device,
        observer,
        samples: Vec::new(),
        skipped: SkippedImages::default(),
        pending: Pending::default(),
        waited: 0.0,
        started: Instant::now(),
    };
    run.note_skipped(&unreadable)?;
    let (step, images) = (run.state.step, run.readable());
    let (changed, other_init) = (changed.as_slice(), other_init.as_ref());
    let started = Event::Started { plan: &plan, step, images, changed, other_init, lost_best };
    run.observer.event(&started);
    run.go(model)
}

/// A last checkpoint and what it says of the run.
type Saved = (PathBuf, RunState);

/// The run in `output`, held before its state is read, and its last checkpoint.
fn run_there(
    output: &Path,
    resume: bool,
) -> Result<(Option<RunFolder>, Option<Saved>), TrainError> {
    // A folder is made once all else is known to be right.
    let Found::Run = folder::look(output)? else { return Ok((None, None)) };
    let held = RunFolder::claim(output)?;
    let Some(last) = held.last()? else { return Ok((Some(held), None)) };
    let state = state::read_state(&last)?;
    if !resume {
        return Err(TrainError::RunExists { folder: output.to_owned(), step: state.step });
    }
    Ok((Some(held), Some((last, state))))
}

/// Makes the folder of a run that begins.
fn claim_new(output: &Path) -> Result<RunFolder, TrainError> {
    let held = RunFolder::claim(output)?;
    // Another process may have trained here since.
    match held.last()? {
        None => Ok(held),
        Some(last) => {
            let step = state::read_state(&last)?.step;
            Err(TrainError::RunExists { folder: output.to_owned(), step })
        }
    }
}

/// Before the first step.
fn first_state(plan: &Plan) -> RunState {
    RunState {
        step: 0,
        best_loss: None,
        best_step: None,
        best_cider: None,
        best_average: Vec::new(),
        changes: Vec::new(),
        data: format!("{:016x}", plan.fingerprint),
        license: plan.license.clone(),
        config: plan.config.clone(),
    }
}

struct Run<'a> {
    /// Held until the run ends.
    folder: RunFolder,
    plan: &'a Plan,
    learner: Learner,
    state: RunState,
    metrics: Metrics,
    loader: TrainLoader,
    loader_config: LoaderConfig,
    /// There in the phase on the score.
    critic: Option<SelfCritical>,
    device: Device,
    observer: &'a mut dyn Observer,
    samples: Vec<Sample>,
    skipped: SkippedImages,
    pending: Pending,
    waited: f64,
    started: Instant,
}

/// What has happened since the last line of metrics.
#[derive(Default)]
struct Pending {
    losses: Vec<Tensor<1>>,
    rewards: Vec<f64>,
    images: usize,
    since: Option<Instant>,
    norm: Option<f64>,
}

impl Run<'_> {
    fn go(&mut self, mut model: Captioner) -> Result<Outcome, TrainError> {
        let settings = &self.plan.config.train;
        let mut interrupted = false;
        let mut saved = self.state.step;
        if self.state.step == 0 && self.plan.config.init.model.is_some() {
            // Whether the run gains anything is seen from where it begins.
            self.validate(&model)?;
        }
        // Only a validation can end patience; a run that is resumed may have come to its end.
        let mut ended = self.is_out_of_patience();
        while self.state.step < self.plan.steps && !ended {
            model = self.step(model)?;
            let step = self.state.step;
            let last = step == self.plan.steps;
            let validates = self.plan.validates_after(step);
            interrupted = !last && self.observer.stop_requested();
            // A line is of one phase.
            let turns = step == self.plan.caption_steps;
            if step.is_multiple_of(settings.log_every) || turns || validates || interrupted {
                self.log()?;
            }
            // Even if a stop was asked for: who resumes after this step does not come here again.
            ended = last;
            if validates {
                self.validate(&model)?;
                ended |= self.is_out_of_patience();
            }
            if ended {
                self.try_average()?;
            }
            if validates || interrupted || step.is_multiple_of(settings.checkpoint_every) {
                self.save(&model)?;
                saved = step;
            }
            if interrupted {
                break;
            }
        }
        if saved != self.state.step {
            self.save(&model)?;
        }
        self.draw_curve()?;
        Ok(Outcome {
            step: self.state.step,
            interrupted,
            best: self.state.best_loss.zip(self.state.best_step),
            best_cider: self.state.best_cider,
            best_average: self.state.best_average.clone(),
            stopped_early: !interrupted && self.state.step < self.plan.steps,
            data_wait_share: self.waited / self.started.elapsed().as_secs_f64().max(1e-9),
            skipped: self.skipped.len(),
        })
    }

    /// Whether the last validations, of the last phase, were no better than one before them.
    fn is_out_of_patience(&self) -> bool {
        let settings = &self.plan.config.train;
        let first = match self.plan.config.phase.scst {
            Some(_) => self.plan.caption_steps,
            None => 0,
        };
        let Some(best) = self.state.best_step.filter(|_| settings.patience > 0) else {
            return false;
        };
        let since = best.max(first) + 1..=self.state.step;
        let worse = since.filter(|step| self.plan.validates_after(*step)).count() as u64;
        worse >= settings.patience
    }

    fn learning_rate(&self) -> f64 {
        self.plan.learning_rate(self.state.step)
    }

    fn epoch(&self) -> f64 {
        self.plan.epoch(self.state.step)
    }

    fn step(&mut self, model: Captioner) -> Result<Captioner, TrainError> {
        self.pending.since.get_or_insert_with(Instant::now);
        let drawn = self.plan.images_before(self.state.step);
        let images = match &self.plan.config.phase.scst {
            Some(scst) if self.state.step >= self.plan.caption_steps => {
                self.learn_from_score(&model, scst)?
            }
            _ => self.learn_from_captions(&model)?,
        };
        let rate = self.learning_rate();
        let (model, norm) = self.learner.update(model, rate);
        self.pending.norm = norm;
        self.pending.images += images;
        self.state.step += 1;
        self.observer.event(&Event::Step {
            step: self.state.step,
            epoch: self.epoch(),
            loss: None,
            reward: None,
            learning_rate: rate,
            images: self.plan.images_before(self.state.step) - drawn,
        });
        Ok(model)
    }

    /// The gradients of one step of the phase on the score; how many images.
    fn learn_from_score(
        &mut self,
        model: &Captioner,
        config: &ScstConfig,
    ) -> Result<usize, TrainError> {
        let plan = self.plan;
        let step = self.state.step;
        if self.critic.is_none() {
            // Every image by itself, whatever captions it has: they are its references.
            let most = plan.train.iter().map(|example| example.captions.len()).max().unwrap_or(1);
            let loader = LoaderConfig {
                batch_size: config.batch_size,
                captions_per_image: most,
                group_by_length: false,
                ..self.loader_config.clone()
            };
            let first = step - plan.caption_steps;
            self.loader = TrainLoader::new(plan.train.clone(), loader, first);
            self.critic = Some(SelfCritical::new(plan, config, self.loader_config.bucket));
        }
        let batch = self.loader.next_batch().ok_or(TrainError::LoaderDied)?;
        self.note_skipped(&batch.skipped)?;
        let images = batch.images;
        let Some(critic) = &self.critic else { return Ok(0) };
        if images == 0 {
            return Ok(0);
        }
        let draws = mix(plan.config.seed ^ 0x5c57, step);
        let noise = mix(plan.config.seed ^ 0xd0_0d, step);
        let say = |model: &Captioner, memory: &Tensor<3>, part| {
            critic.say(model, memory, &batch, part, plan, draws)
        };
        let temperature = f64::from(config.temperature);
        let (loss, reward) =
            self.learner.gradients.add_said(model, &batch, noise, temperature, say)?;
        self.pending.rewards.push(reward);
        self.pending.losses.push(loss);
        Ok(images)
    }

    /// The gradients of one step of the phase on captions; how many images.
    fn learn_from_captions(&mut self, model: &Captioner) -> Result<usize, TrainError> {
        let settings = &self.plan.config.train;
        let mut images = 0;
        for micro in 0..settings.accumulation as u64 {
            let batch = self.loader.next_batch().ok_or(TrainError::LoaderDied)?;
            self.note_skipped(&batch.skipped)?;
            if batch.tokens == 0 {
                continue;
            }
            images += batch.images;
            // Noise is seeded by the step: it needs no saved state.
            let number = self.state.step * settings.accumulation as u64 + micro;
            let seed = mix(self.plan.config.seed ^ 0xd0_0d, number);
            self.pending.losses.push(self.learner.gradients.add(model, batch, seed));
        }
        Ok(images)
    }

    /// Names each unreadable image once; too many end the run.
    fn note_skipped(&mut self, skipped: &[SkippedImage]) -> Result<(), TrainError> {
        for image in skipped {
            if self.skipped.add(image.clone()) {
                self.observer.event(&Event::Skipped(image));
            }
        }
        let (bad, seen) = (self.skipped.len(), self.plan.train.len() + self.plan.val.len());
        match self.skipped.first() {
            Some(first) if is_too_many_bad(bad, seen) && !self.plan.config.data.allow_bad => {
                Err(TrainError::TooManyBad { bad, seen, first: first.reason.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Reads the losses since the last line, checks them and writes a line.
    fn log(&mut self) -> Result<(), TrainError> {
        let pending = std::mem::take(&mut self.pending);
        if pending.losses.is_empty() {
            return Ok(());
        }
        let loss = read_scalar(Tensor::cat(pending.losses, 0).mean())?;
        self.ensure_finite(loss)?;
        let step = self.state.step;
        let seconds = pending.since.map_or(0.0, |since| since.elapsed().as_secs_f64()).max(1e-9);
        let waited = self.loader.take_waited().as_secs_f64();
        self.waited += waited;
        let rate = self.plan.learning_rate(step - 1);
        let rewards = pending.rewards.len();
        let reward = (rewards > 0).then(|| pending.rewards.iter().sum::<f64>() / rewards as f64);
        self.observer.event(&Event::Step {
            step,
            epoch: self.epoch(),
            loss: Some(loss),
            reward,
            learning_rate: rate,
            images: 0,
        });
        self.metrics.push(Metric::Train {
            step,
            epoch: self.epoch(),
            loss,
            learning_rate: rate,
            gradient_norm: pending.norm,
            images_per_second: pending.images as f64 / seconds,
            data_wait_share: waited / seconds,
            reward,
        })?;
        Ok(())
    }

    fn ensure_finite(&self, loss: f64) -> Result<(), TrainError> {
        if loss.is_finite() {
            return Ok(());
        }
        let last = self.plan.config.output.join(LAST);
        let last_good = match last.exists() {
            true => format!("the last good checkpoint is {}", last.display()),
            false => "no checkpoint was written before".into(),
        };
        Err(TrainError::NotFinite { step: self.state.step, loss, last_good })
    }

    fn validate(&mut self, model: &Captioner) -> Result<(), TrainError> {
        let averaged = self.learner.optimizer.averaged(model.valid());
        let (validation, cider) = self.measure(&averaged)?;
        self.samples = self.sample(&averaged)?;
        let train_loss = self.loss_on(&averaged, &self.some_of_train())?;
        let train_loss = (train_loss.tokens > 0).then_some(train_loss.loss);
        let step = self.state.step;
        let best = self.is_better(&validation, cider);
        self.metrics.push(Metric::Validation {
            step,
            epoch: self.epoch(),
            loss: validation.loss,
            perplexity: validation.perplexity(),
            train_loss,
            cider,
        })?;
        // Of the weights that a run learned: not of those that it began with.
        if self.plan.config.train.average_last > 0 && step > 0 {
            state::save_recent(self.plan, model, &self.learner.optimizer, step)?;
        }
        if best {
            self.state.best_loss = Some(validation.loss);
            self.state.best_step = Some(step);
            self.state.best_cider = cider;
            self.state.best_average.clear();
            let card = self.card(&self.state, &self.samples);
            state::save_best(self.plan, model, &self.learner.optimizer, &card)?;
        }
        let samples = &self.samples;
        let validation = &validation;
        self.observer.event(&Event::Validated { step, validation, cider, best, samples });
        self.draw_curve()
    }

    /// Loss on `examples`, as the run reads images.
    fn loss_on(&self, model: &Captioner, examples: &[Example]) -> Result<Validation, TrainError> {
        let frozen_until = self.plan.trained.frozen_until;
        validate(model, examples, &self.loader_config, frozen_until, &self.device)
    }

    /// A few training images, spread over the set: their loss, measured as that of validation images is, tells
    /// what is learned from what is learned by heart.
    fn some_of_train(&self) -> Vec<Example> {
        const MOST: usize = 64;
        let train = &self.plan.train;
        let wanted = MOST.min(train.len()).min(self.plan.val.len());
        (0..wanted).map(|index| train[index * train.len() / wanted].clone()).collect()
    }

    /// Loss on the validation images and, where the best checkpoint is chosen by it, CIDEr.
    fn measure(&mut self, model: &Captioner) -> Result<(Validation, Option<f64>), TrainError> {
        let validation = self.loss_on(model, &self.plan.val)?;
        self.ensure_finite(validation.loss)?;
        self.note_skipped(&validation.skipped)?;
        let cider = match self.plan.config.train.select_by {
            SelectBy::Loss => None,
            SelectBy::Cider => {
                let (loader, shares) = (&self.loader_config, &self.learner.gradients.shares);
                Some(score::cider(model, self.plan, loader, shares, &self.device)?)
            }
        };
        Ok((validation, cider))
    }

    fn is_better(&self, validation: &Validation, cider: Option<f64>) -> bool {
        match cider {
            None => self.state.best_loss.is_none_or(|best| validation.loss < best),
            Some(cider) => self.state.best_cider.is_none_or(|best| cider > best),
        }
    }

    /// Writes the mean of the weights that `recent` holds, and keeps it as the best if it is.
    fn try_average(&mut self) -> Result<(), TrainError> {
        let plan = self.plan;
        let wanted = plan.config.train.average_last;
        let mut kept = folder::recent_weights(&plan.config.output);
        kept.drain(..kept.len().saturating_sub(wanted));
        if wanted == 0 || kept.len() < 2 {
            return Ok(());
        }
        let (steps, files): (Vec<u64>, Vec<PathBuf>) = kept.into_iter().unzip();
        let weights = mean_of_files(&files)?;
        let model = Captioner::new(&plan.config.model, &self.device.clone().inner())?;
        let model = tensors::apply(model, weights.clone(), &files[0])?;
        let (validation, cider) = self.measure(&model)?;
        let best = self.is_better(&validation, cider);
        let state = RunState {
            best_loss: Some(validation.loss),
            best_cider: cider,
            best_average: steps.clone(),
            ..self.state.clone()
        };
        let samples = self.sample(&model)?;
        let card = self.card(&state, &samples);
        state::save_weights(plan, AVERAGE, &weights, &card)?;
        if best {
            state::save_weights(plan, BEST, &weights, &card)?;
            (self.state, self.samples) = (state, samples);
        }
        self.metrics.push(Metric::Average {
            step: self.state.step,
            steps: steps.clone(),
            loss: validation.loss,
            perplexity: validation.perplexity(),
            cider,
            best,
        })?;
        let (steps, validation) = (&steps, &validation);
        self.observer.event(&Event::Averaged { steps, validation, cider, best });
        Ok(())
    }

    /// Captions a few validation images, spread over the set, from their own pixels.
    fn sample(&self, model: &Captioner) -> Result<Vec<Sample>, TrainError> {
        let plan = self.plan;
        let wanted = plan.config.train.samples.min(plan.val.len());
        let examples: Vec<&Example> =
            (0..wanted).map(|index| &plan.val[index * plan.val.len() / wanted]).collect();
        let decode = plan.decoding();
        let loader = LoaderConfig { features: None, ..self.loader_config.clone() };
        let shares = &self.learner.gradients.shares;
        let said = score::captions(model, plan, &loader, &examples, &decode, shares, &self.device)?;
        let samples = examples.into_iter().zip(said);
        Ok(samples
            .filter_map(|(example, said)| {
                said.map(|caption| Sample { path: example.image.path().to_owned(), caption })
            })
            .collect())
    }

    fn save(&mut self, model: &Captioner) -> Result<(), TrainError> {
        // Nothing that is not a number may replace a good checkpoint. The losses so far are of the
        // weights before the last update: those to be saved must show one of their own.
        self.log()?;
        let few = &self.plan.val[..self.plan.val.len().min(self.loader_config.batch_size)];
        let raw = model.valid();
        let mut kept = vec![raw.clone()];
        if self.plan.config.optimizer.ema_decay > 0.0 {
            kept.push(self.learner.optimizer.averaged(raw));
        }
        for weights in &kept {
            self.ensure_finite(self.loss_on(weights, few)?.loss)?;
        }
        let card = self.card(&self.state, &self.samples);
        state::save_last(self.plan, model, &self.learner.optimizer, &self.state, &card)?;
        self.folder.note_saved()?;
        let folder = self.plan.config.output.join(LAST);
        self.observer.event(&Event::Saved { step: self.state.step, folder: &folder });
        Ok(())
    }

    fn card(&self, state: &RunState, samples: &[Sample]) -> String {
        card(self.plan, state, self.readable(), samples)
    }

    /// Images to train on and to validate on, less those that could not be read.
    fn readable(&self) -> [usize; 2] {
        let is_read = |example: &&Example| self.skipped.reason(example.image.path()).is_none();
        [&self.plan.train, &self.plan.val].map(|examples| examples.iter().filter(is_read).count())
    }

    fn draw_curve(&self) -> Result<(), TrainError> {
        let step = self.state.best_average.last().copied().or(self.state.best_step);
        let best = self.state.best_loss.zip(step);
        let best = best.map(|(loss, step)| (step, loss, self.state.best_cider));
        let name = self.plan.config.output.file_name().unwrap_or_default().to_string_lossy();
        let curves = self.metrics.curves(best, &self.plan.config.what_is_minimised());
        match curves_svg(&name, &curves) {
            Some(svg) => {
                Ok(atomic::replace_file(&self.plan.config.output.join(CURVE), svg.as_bytes())?)
            }
            None => Ok(()),
        }
    }
}
