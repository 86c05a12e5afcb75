//! A Sigstore bundle, or envelopes one a line (docs/attest.md): whatever the bytes, they are refused with a reason, or they are
//! envelopes that are the same when they are written again, and of which a key that signed none opens none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slmc::trust::statement::Statement;
use slmc::trust::{Algorithm, PublicKey, SecretKey, bundle};
use std::sync::OnceLock;

/// A key that has signed nothing.
fn key() -> &'static PublicKey {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    KEY.get_or_init(|| SecretKey::generate(Algorithm::P256).expect("random bytes").public().clone())
}

fuzz_target!(|bytes: &[u8]| {
    match bundle::envelopes(bytes) {
        Err((_, fault)) => assert!(!fault.is_empty()),
        Ok(found) => {
            let envelopes: Vec<_> = found.into_iter().map(|(_, envelope)| envelope).collect();
            let again = bundle::envelopes(bundle::lines(&envelopes).as_bytes()).expect("what was written is read");
            assert!(again.into_iter().map(|(_, envelope)| envelope).eq(envelopes.iter().cloned()));
            for envelope in &envelopes {
                assert!(envelope.open(key()).is_err());
                if let Ok(body) = envelope.body() {
                    let _ = Statement::read(&envelope.payload_type, &body);
                }
            }
        }
    }
});
