//! Saved sessions continue with the same bits, and modified files are refused.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vaquita_runtime::model::ModelError;
use vaquita_runtime::model::cache::CacheType;
use vaquita_runtime::session::save::SaveError;
use vaquita_runtime::session::{Session, SessionError, SessionOptions};
use vaquita_runtime::threads::Pool;
use vaquita_tests::{bits, golden, goldens, open_folder};

fn sessions(cache: CacheType) -> (impl Fn() -> Session, Vec<u32>) {
    let model = open_folder(&golden("deepseek-v3"));
    let pool = Arc::new(Pool::new(2));
    let options = SessionOptions { cache, context: 64, ..SessionOptions::default() };
    let tokens = goldens(&golden("deepseek-v3").join("golden.safetensors")).swap_remove(0).tokens;
    (move || Session::new(model.clone(), pool.clone(), options.clone()), tokens)
}

#[test]
fn a_restored_session_goes_on_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    for cache in CacheType::ALL {
        let (session, tokens) = sessions(cache);
        let mut saved = session();
        saved.feed(&tokens[..9]).unwrap();
        saved.save(&file, 7, b"note").unwrap();
        let expected = saved.feed(&tokens[9..12]).unwrap();

        let mut restored = session();
        restored.feed(&tokens[3..5]).unwrap();
        assert_eq!(restored.restore(&file, 7).unwrap(), b"note");
        assert_eq!(restored.tokens(), &tokens[..9]);
        assert_eq!(bits(&restored.feed(&tokens[9..12]).unwrap()), bits(&expected));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file).unwrap());
            assert_eq!(mode & 0o777, 0o600, "it holds what was said");
        }
    }
}

#[test]
fn a_file_that_was_touched_is_refused_and_the_session_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    let (session, tokens) = sessions(CacheType::F16);
    let mut saved = session();
    saved.feed(&tokens[..4]).unwrap();
    saved.save(&file, 7, b"").unwrap();
    let good = fs::read(&file).unwrap();
    let mut refused = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let error = saved.restore(&file, 7).unwrap_err();
        assert_eq!(saved.tokens(), &tokens[..4]);
        error
    };
    let head = 64.min(good.len());
    for at in (0..head).chain((head..good.len()).step_by(37)) {
        for bit in [1, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= bit;
            refused(&bytes);
        }
    }
    for len in (0..head).chain([good.len() - 1]) {
        refused(&good[..len]);
    }
    let longer = [&good[..], &[0]].concat();
    let error = refused(&longer);
    assert!(error.to_string().contains("1 bytes too many"), "{error}");
    let mut version = good.clone();
    version[8] = 9;
    assert!(matches!(refused(&version), SaveError::Version { found: 9, .. }));
}

#[test]
fn a_session_of_another_model_or_precision_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    let (session, tokens) = sessions(CacheType::F16);
    let mut saved = session();
    saved.feed(&tokens[..4]).unwrap();
    saved.save(&file, 7, b"").unwrap();
    assert!(matches!(saved.restore(&file, 8), Err(SaveError::OtherModel { .. })));
    let mut precise = sessions(CacheType::F32).0();
    let error = precise.restore(&file, 7).unwrap_err();
    assert!(matches!(error, SaveError::CacheType { found: "f16", expected: "f32", .. }), "{error}");
    let error = saved.restore(&folder.path().join("none"), 7).unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
    assert!(saved.save(&folder.path().join("no/folder"), 7, b"").is_err());
}

#[test]
fn a_cancelled_session_computes_nothing_and_can_go_on() {
    let (session, tokens) = sessions(CacheType::F16);
    let expected = session().feed(&tokens[..6]).unwrap();
    let mut cancelled = session();
    let flag = Arc::new(AtomicBool::new(false));
    cancelled.cancel_with(flag.clone());
    cancelled.feed(&tokens[..3]).unwrap();
    flag.store(true, Ordering::Relaxed);
    let error = cancelled.feed(&tokens[3..6]).unwrap_err();
    assert!(matches!(error, SessionError::Model(ModelError::Cancelled)), "{error}");
    assert_eq!(cancelled.tokens(), &tokens[..3]);
    flag.store(false, Ordering::Relaxed);
    assert_eq!(bits(&cancelled.feed(&tokens[3..6]).unwrap()), bits(&expected));
}
