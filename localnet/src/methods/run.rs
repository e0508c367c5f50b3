//! Get-methods.

use serde_json::{Value, json};
use tussah_settlement::chain::embedded::{GetMethodId, GetMethodRun};
use tycho_vm::RcStackValue;

use super::{ApiError, accounts, blocks, require_newest};
use crate::network::Network;
use crate::parameters::Parameters;
use crate::stack;

/// Values that a method is called with.
const ARGUMENTS_MAX: usize = 255;

fn run(
    network: &Network,
    parameters: &Parameters,
    read: fn(&Value) -> Result<RcStackValue, ApiError>,
) -> Result<GetMethodRun, ApiError> {
    let address = parameters.address("address")?;
    let method = match parameters.required("method")? {
        Value::String(name) => match name.parse() {
            Ok(number) => GetMethodId::Number(number),
            Err(_) => GetMethodId::Name(name.clone()),
        },
        Value::Number(number) => match number.as_i64() {
            Some(number) => GetMethodId::Number(number),
            None => return Err(ApiError::malformed("failed to parse method")),
        },
        _ => return Err(ApiError::malformed("failed to parse method")),
    };
    let Some(values) = parameters.required("stack")?.as_array() else {
        return Err(ApiError::malformed("failed to parse stack: not a list"));
    };
    if values.len() > ARGUMENTS_MAX {
        let message = format!("a stack has at most {ARGUMENTS_MAX} entries here");
        return Err(ApiError::malformed(message));
    }
    require_newest(network, parameters)?;
    let arguments = values.iter().map(read).collect::<Result<_, _>>()?;
    Ok(network.chain().run_get(&address, &method, arguments)?)
}

pub(super) fn pairs(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let run = run(network, parameters, stack::from_pair)?;
    let address = parameters.address("address")?;
    let values: Vec<Value> = run.stack.iter().map(stack::to_pair).collect();
    Ok(json!({
        "@type": "smc.runResult",
        "gas_used": run.gas_used,
        "stack": values,
        "exit_code": run.exit_code,
        "block_id": blocks::newest(network)?,
        "last_transaction_id": accounts::last_transaction(network, &address),
    }))
}

pub(super) fn objects(network: &mut Network, parameters: &Parameters) -> Result<Value, ApiError> {
    let run = run(network, parameters, stack::from_object)?;
    let values: Vec<Value> = run.stack.iter().map(stack::to_object).collect();
    Ok(json!({
        "@type": "smc.runResult",
        "gas_used": run.gas_used,
        "stack": values,
        "exit_code": run.exit_code,
    }))
}
