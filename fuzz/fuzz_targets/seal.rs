//! A seal (docs/seal.md): a number of leaves, a device's key by its number, then the section. Whatever the bytes, they are refused,
//! or they are stanzas and tags that can be looked at; a stanza that nobody made with the key opens nothing, and one that was made
//! for this salt opens with it alone.

#![no_main]

use libfuzzer_sys::fuzz_target;
use slm_runtime::format::seal::{Seal, SealCipher, TAG_BYTES};
use slm_runtime::seal::{DeviceKey, FileKey, SealError, SoftwareCipher};

/// The key of the seeds.
const KEY: [u8; 32] = [7; 32];
/// Most stanzas that are tried: each takes four digests.
const MOST: usize = 16;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[leaves, choice], section)) = bytes.split_first_chunk::<2>() else { return };
    let cipher = if choice & 1 == 0 { SealCipher::ChaCha20Poly1305 } else { SealCipher::Aes256Gcm };
    let leaves = u64::from(leaves);
    let Ok(seal) = Seal::read(section, leaves) else { return };
    assert_eq!((0..=leaves).filter(|&leaf| seal.tag(leaf).is_some()).count() as u64, leaves);
    if seal.stanzas().len() > MOST {
        return;
    }
    let device = DeviceKey::new(&KEY);
    match FileKey::find(&device, cipher, &seal, None, leaves) {
        Err(SealError::NoStanza { stanzas }) => assert_eq!(stanzas, seal.stanzas().len()),
        Err(error) => assert_eq!(error, SealError::Stanza),
        Ok(key) => {
            // Only from a seed: opens no leaf whose tag is not by it, and what does not open is zeros.
            for leaf in 0..leaves {
                let (mut cipher, tag) = ([0x5a; 33], seal.tag(leaf).expect("counted"));
                match key.open(&SoftwareCipher, leaf, &mut cipher, tag) {
                    Ok(()) => assert_ne!(tag, &[0; TAG_BYTES]),
                    Err(error) => assert_eq!((error, cipher), (SealError::Tag { leaf }, [0; 33])),
                }
            }
        }
    }
    // A stanza for this salt, made here, beside whatever the section has.
    let stanza = device.stanza(cipher, &[9; 16], seal.salt).expect("the cipher is there");
    assert!(FileKey::find(&device, cipher, &seal, Some(&stanza), leaves).is_ok());
    let mut changed = stanza;
    changed[usize::from(choice) % stanza.len()] ^= 1;
    if seal.stanzas().is_empty() {
        assert!(FileKey::find(&device, cipher, &seal, Some(&changed), leaves).is_err());
    }
});
