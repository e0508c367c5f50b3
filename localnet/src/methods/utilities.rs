//! Forms of addresses and hashes.

use serde_json::{Value, json};
use tussah_settlement::Address;

use super::ApiError;
use crate::address::{self, Form};
use crate::cells;
use crate::network::Network;
use crate::parameters::Parameters;

pub(super) fn detect_address(_: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let parsed = parameters.parsed_address("address")?;
    let variant = |bounceable| {
        let friendly = address::friendly(&parsed.address, bounceable, parsed.test_only);
        json!({
            "@type": "ext.utils.detectedAddressVariant",
            // 36 bytes have no padding, so the two alphabets are all the difference.
            "b64": friendly.replace('-', "+").replace('_', "/"),
            "b64url": friendly,
        })
    };
    Ok(json!({
        "@type": "ext.utils.detectedAddress",
        "raw_form": address::raw(&parsed.address),
        "bounceable": variant(true),
        "non_bounceable": variant(false),
        "given_type": match parsed.form {
            Form::Raw => "raw_form",
            Form::Bounceable => "friendly_bounceable",
            Form::NonBounceable => "friendly_non_bounceable",
        },
        "test_only": parsed.test_only,
    }))
}

pub(super) fn pack_address(_: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let parsed = parameters.parsed_address("address")?;
    let bounceable = parsed.form != Form::NonBounceable;
    let friendly = address::friendly(&parsed.address, bounceable, parsed.test_only);
    Ok(json!(friendly))
}

pub(super) fn unpack_address(_: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let Address {
        workchain, address, ..
    } = parameters.address("address")?;
    // Digits in upper case, unlike in `detectAddress`: so toncenter has it.
    let hash = cells::hex(address.as_array()).to_uppercase();
    Ok(json!(format!("{workchain}:{hash}")))
}

pub(super) fn detect_hash(_: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    parameters.required("hash")?;
    let Some(hash) = parameters.hash("hash")? else {
        return Err(ApiError::malformed("empty hash"));
    };
    Ok(json!({
        "@type": "ext.utils.detectedHash",
        "b64": cells::base64(&hash),
        "b64url": cells::base64_url(&hash),
        "hex": cells::hex(&hash),
    }))
}
