;; A job around a core module: the world tussah:job/job by hand, without an SDK.
(component
  (type $error-shape (record (field "code" u32) (field "message" string)))
  (import "job-error" (type $job-error (eq $error-shape)))
  (import "tussah:job/types@0.1.0" (instance $types
    (type $code-shape (enum "invalid-argument" "unknown-model" "unsupported-operation"
      "context-full" "out-of-memory" "limit-exceeded" "model-failed"))
    (export "error-code" (type $code (eq $code-shape)))
    (type $error-shape (record (field "code" $code) (field "message" string)))
    (export "error" (type (eq $error-shape)))))
  (alias export $types "error" (type $error))
  (import "tussah:job/output@0.1.0" (instance $output
    (alias outer 1 $error (type $outer-error))
    (export "error" (type $error (eq $outer-error)))
    (export "emit" (func (param "bytes" (list u8)) (result (result (error $error)))))
    (export "progress" (func (param "done" u64) (param "total" u64) (param "note" string)))))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
    (export "now" (func (result u64)))))
  (import "wasi:random/random@0.2.0" (instance $random
    (export "get-random-u64" (func (result u64)))))

  (core module $memory
    (memory (export "mem") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get $size)))
      (local.get $at)))
  (core instance $memory (instantiate $memory))
  (core func $emit (canon lower (func $output "emit") (memory (core memory $memory "mem")) (realloc (core func $memory "realloc"))))
  (core func $progress (canon lower (func $output "progress") (memory (core memory $memory "mem"))))
  (core func $now (canon lower (func $clock "now")))
  (core func $random-u64 (canon lower (func $random "get-random-u64")))

  (core module $guest
    (import "host" "mem" (memory 1))
    (import "host" "emit" (func $emit (param i32 i32 i32)))
    (import "host" "progress" (func $progress (param i64 i64 i32 i32)))
    (import "host" "now" (func $now (result i64)))
    (import "host" "random" (func $random (result i64)))
    ;; At 0 an `ok`; at 64 an error of code 7 whose message is at 96.
    (data (i32.const 64) "\01\00\00\00\07\00\00\00\60\00\00\00\0e\00\00\00")
    (data (i32.const 96) "no such kettle")
    ;; GUEST
    (export "run" (func $run)))
  (core instance $guest (instantiate $guest (with "host" (instance
    (export "mem" (memory $memory "mem"))
    (export "emit" (func $emit))
    (export "progress" (func $progress))
    (export "now" (func $now))
    (export "random" (func $random-u64))))))
  (func $run (param "input" (list u8)) (result (result (error $job-error)))
    (canon lift (core func $guest "run") (memory (core memory $memory "mem")) (realloc (core func $memory "realloc"))))
  (export "run" (func $run)))
