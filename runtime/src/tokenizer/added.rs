//! Added tokens, which are matched in the text itself.
//!
//! The `tokenizers` crate assigns ids to added tokens by its own count. [`Declared`] takes the
//! place of the model there and returns the id that the file declares for each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenizers::models::bpe::BpeTrainer;
use tokenizers::{
    AddedToken, AddedVocabulary, Model, NormalizedString, Normalizer, NormalizerWrapper, Token,
};

use super::error::TokenizerError;

use super::definition::{AddedIds, Definition};

/// Matchers of added tokens: one for all of them, and one that leaves control tokens as text.
pub(super) struct AddedTokens {
    all: AddedVocabulary,
    uncontrolled: AddedVocabulary,
}

impl AddedTokens {
    pub(super) fn new(
        definition: &Definition<'_>,
        ids: &AddedIds,
        normalizer: Option<&NormalizerWrapper>,
    ) -> Result<Self, TokenizerError> {
        let tokens: Vec<_> = definition.added_tokens.iter().map(|a| a.token.clone()).collect();
        for token in tokens.iter().filter(|token| token.normalized) {
            check_normalized(token, normalizer)?;
        }
        let mut all = AddedVocabulary::new();
        all.add_tokens(&tokens, &Declared(ids), normalizer);
        let mut uncontrolled = all.clone();
        uncontrolled.set_encode_special_tokens(true);
        Ok(Self { all, uncontrolled })
    }

    /// Returns the matcher of added tokens in a text; it matches control tokens only if `special`.
    pub(super) fn recogniser(&self, special: bool) -> &AddedVocabulary {
        if special { &self.all } else { &self.uncontrolled }
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.all.get_vocab().get(token).copied()
    }

    pub(super) fn get(&self, id: u32) -> Option<&AddedToken> {
        self.all.get_added_tokens_decoder().get(&id)
    }

    /// Iterates over all added tokens by ascending id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &AddedToken)> {
        let mut tokens: Vec<_> =
            self.all.get_added_tokens_decoder().iter().map(|(id, token)| (*id, token)).collect();
        tokens.sort_by_key(|(id, _)| *id);
        tokens.into_iter()
    }
}

/// Refuses tokens that the normalizer reduces to nothing: they would match everywhere.
fn check_normalized(
    token: &AddedToken,
    normalizer: Option<&NormalizerWrapper>,
) -> Result<(), TokenizerError> {
    let mut content = NormalizedString::from(token.content.as_str());
    if let Some(normalizer) = normalizer {
        normalizer.normalize(&mut content).map_err(TokenizerError::from_crate)?;
    }
    if !content.get().is_empty() {
        return Ok(());
    }
    let allowed = "text of which the normalizer leaves something";
    Err(TokenizerError::value("an added token", format!("{:?}", token.content), allowed))
}

/// A model that only maps added tokens to ids.
struct Declared<'a>(&'a AddedIds);

impl Model for Declared<'_> {
    type Trainer = BpeTrainer;

    fn tokenize(&self, _: &str) -> tokenizers::Result<Vec<Token>> {
        Err("only ids are known".into())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.get(token).copied()
    }

    fn id_to_token(&self, _: u32) -> Option<String> {
        None
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.0.clone()
    }

    fn get_vocab_size(&self) -> usize {
        self.0.len()
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("only ids are known".into())
    }

    fn get_trainer(&self) -> BpeTrainer {
        BpeTrainer::default()
    }
}
