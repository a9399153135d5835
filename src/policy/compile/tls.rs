//! `tls` of a trunk: who proves what on the connections that we open.

use super::trunk::Desk;
use crate::file::{At, TrunkTlsFile};
use crate::policy::TrunkTls;

/// Compiles it; the files that it names are read by the edge.
pub(super) fn compile(desk: &mut Desk<'_, '_>, file: Option<&At<TrunkTlsFile>>) -> TrunkTls {
    let Some(file) = file else { return TrunkTls::default() };
    let mut pins = Vec::new();
    for pin in file.pins.iter().flat_map(|pins| pins.iter()) {
        match fingerprint(pin) {
            Some(pin) => pins.push(pin),
            None => {
                let help = "write it as in \"sha256:\" and 64 hex digits, with colons or without";
                desk.error(pin.span(), "not a fingerprint", help);
            }
        }
    }
    if let Some(list) = file.pins.as_ref().filter(|list| list.is_empty()) {
        desk.error(list.span(), "the list is empty", "leave the key out for none");
    }
    if let (Some(ca), Some(_)) = (&file.ca, &file.pins) {
        let help = "remove `ca`: a pinned certificate needs nobody who vouches for it";
        desk.error(ca.span(), "no authority is asked where certificates are pinned", help);
    }
    let identity = match (&file.certificate, &file.key) {
        (Some(certificate), Some(key)) => Some(((**certificate).clone(), (**key).clone())),
        (Some(lone), None) => {
            desk.error(lone.span(), "a certificate without its key", "add `key`");
            None
        }
        (None, Some(lone)) => {
            desk.error(lone.span(), "a key without its certificate", "add `certificate`");
            None
        }
        (None, None) => None,
    };
    for path in [&file.ca, &file.certificate, &file.key].into_iter().flatten() {
        if path.is_empty() {
            desk.error(path.span(), "no file is named", "leave the key out for the default");
        }
    }
    let authorities = file.ca.as_ref().map(|ca| (**ca).clone());
    TrunkTls { authorities, pins, identity, span: Some(file.span()) }
}

/// A fingerprint as `openssl x509 -fingerprint -sha256` writes it, behind `sha256:`.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let (kind, digits) = text.split_once(':')?;
    if !kind.eq_ignore_ascii_case("sha256") {
        return None;
    }
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|byte| *byte != b':')
        .map(|byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 64 { bytes.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn a_fingerprint_is_read_as_openssl_prints_it() {
        let bytes: [u8; 32] = core::array::from_fn(|index| index as u8 * 7);
        let plain: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let colons: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(fingerprint(&format!("sha256:{plain}")), Some(bytes));
        assert_eq!(fingerprint(&format!("SHA256:{}", colons.join(":"))), Some(bytes));
        for wrong in ["", "sha256:", "sha1:00", &plain, &format!("sha256:{plain}00"), "sha256:xy"] {
            assert_eq!(fingerprint(wrong), None, "{wrong}");
        }
    }
}
