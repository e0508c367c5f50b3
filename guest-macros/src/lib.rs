//! The `#[job]` attribute of `tussah-sdk`.
//!
//! In: a plain function from an input to an outcome. Out: the same function, and on
//! wasm targets the component export that calls it. It never changes the function, so
//! that the job's logic stays callable from native tests.

use proc_macro::TokenStream;
use quote::quote;
use syn::{Error, FnArg, ItemFn, parse_macro_input, spanned::Spanned};

/// Makes a function the entry point of a job.
///
/// The function takes the input, or nothing: `String` (the input must then be UTF-8),
/// `Vec<u8>`, `Json<T>`, or what else implements `tussah_sdk::FromInput`. It returns what is
/// to be emitted: `()`, `String`, `Vec<u8>`, `Json<T>`, a `Session`, a `Stream`, or what else
/// implements `tussah_sdk::IntoOutcome`, or a `Result` of one of them whose error converts
/// into `tussah_sdk::Error`. A module has one job.
#[proc_macro_attribute]
pub fn job(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    match check(&arguments.into(), &function) {
        Ok(()) => expand(&function).into(),
        Err(error) => {
            let error = error.to_compile_error();
            quote!(#function #error).into()
        }
    }
}

fn check(arguments: &proc_macro2::TokenStream, function: &ItemFn) -> Result<(), Error> {
    if !arguments.is_empty() {
        return Err(Error::new(arguments.span(), "#[job] takes no arguments"));
    }
    let signature = &function.sig;
    if let Some(asyncness) = &signature.asyncness {
        return Err(Error::new(
            asyncness.span(),
            "a job is a plain function: host calls wait by themselves, without `async`",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(
            signature.generics.span(),
            "a job cannot be generic",
        ));
    }
    match signature.inputs.iter().collect::<Vec<_>>().as_slice() {
        [] | [FnArg::Typed(_)] => Ok(()),
        _ => Err(Error::new(
            signature.inputs.span(),
            "a job takes one argument, its input: `String`, `Vec<u8>` or `Json<T>`; \
             more than one value is a struct in a `Json<T>`",
        )),
    }
}

fn expand(function: &ItemFn) -> proc_macro2::TokenStream {
    let name = &function.sig.ident;
    let entry = if function.sig.inputs.is_empty() {
        quote!((|_: ::tussah_sdk::__private::Ignored| #name()))
    } else {
        quote!(#name)
    };
    quote! {
        #function

        #[cfg(target_family = "wasm")]
        const _: () = {
            struct Job;
            impl ::tussah_sdk::__private::Guest for Job {
                fn run(
                    input: ::std::vec::Vec<u8>,
                ) -> ::std::result::Result<(), ::tussah_sdk::__private::JobError> {
                    ::tussah_sdk::__private::call(#entry, input)
                }
            }
            ::tussah_sdk::__private::export!(Job with_types_in ::tussah_sdk::__private);
        };

        // Elsewhere the function is only checked, so that native tests see the same errors.
        #[cfg(not(target_family = "wasm"))]
        const _: () = ::tussah_sdk::__private::check(&#entry);
    }
}
