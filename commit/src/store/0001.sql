-- Both roles have all tables; each uses its own. Amounts are nanograms, times seconds of the
-- Unix epoch, hashes and keys 32 bytes, signatures 64. Every amount and count fits 63 bits.

CREATE TABLE channel (
    id INTEGER PRIMARY KEY,
    network INTEGER NOT NULL,
    address TEXT NOT NULL,
    incarnation BLOB NOT NULL CHECK (length(incarnation) = 32),
    -- what the two agreed on
    client TEXT NOT NULL,
    owner TEXT NOT NULL,
    client_key BLOB NOT NULL CHECK (length(client_key) = 32),
    challenge_seconds INTEGER NOT NULL,
    redeem_step_min INTEGER NOT NULL,
    salt BLOB NOT NULL CHECK (length(salt) = 8),
    -- the provider's part at the beginning, from which the address follows
    first_key BLOB NOT NULL CHECK (length(first_key) = 32),
    first_payout TEXT NOT NULL,
    -- the provider's key now
    provider_key BLOB NOT NULL CHECK (length(provider_key) = 32),
    in_flight_max INTEGER NOT NULL,
    -- as the chain was seen last; none of it goes back
    status INTEGER NOT NULL,
    deadline INTEGER NOT NULL,
    capacity INTEGER NOT NULL,
    redeemed INTEGER NOT NULL DEFAULT 0,
    posted_receipts INTEGER NOT NULL DEFAULT 0,
    owed INTEGER NOT NULL DEFAULT 0,
    seen_lt BLOB NOT NULL DEFAULT x'0000000000000000' CHECK (length(seen_lt) = 8),
    -- receipts in the tree: `receipt` rows past it wait for an earlier one
    receipts INTEGER NOT NULL DEFAULT 0,
    -- the price of all `receipt` rows
    earned INTEGER NOT NULL DEFAULT 0,
    -- the newest voucher; no signature, no voucher
    voucher_amount INTEGER NOT NULL DEFAULT 0,
    voucher_receipts INTEGER NOT NULL DEFAULT 0,
    voucher_root BLOB NOT NULL CHECK (length(voucher_root) = 32),
    voucher_signature BLOB CHECK (length(voucher_signature) = 64),
    -- when the oldest amount that was not redeemed was promised
    voucher_since INTEGER NOT NULL DEFAULT 0,
    UNIQUE (network, address, incarnation)
) STRICT;

CREATE TABLE receipt (
    channel INTEGER NOT NULL REFERENCES channel (id),
    idx INTEGER NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    price INTEGER NOT NULL,
    claim BLOB NOT NULL CHECK (length(claim) = 64),
    bytes BLOB NOT NULL,
    PRIMARY KEY (channel, idx)
) STRICT;

-- The hash over the receipts place * 2^level .. (place + 1) * 2^level, once all of them are there.
CREATE TABLE node (
    channel INTEGER NOT NULL REFERENCES channel (id),
    level INTEGER NOT NULL,
    place INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (channel, level, place)
) STRICT, WITHOUT ROWID;

-- Provider: admitted requests without a receipt. Client: all requests that it signed.
CREATE TABLE request (
    channel INTEGER NOT NULL REFERENCES channel (id),
    idx INTEGER NOT NULL,
    job BLOB NOT NULL CHECK (length(job) = 32),
    price_max INTEGER NOT NULL,
    -- provider: what the job may spend before the next voucher
    granted INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (channel, idx, job)
) STRICT;

-- Provider: the voucher that is on its way to the chain; at most one a channel.
CREATE TABLE posting (
    channel INTEGER PRIMARY KEY REFERENCES channel (id),
    amount INTEGER NOT NULL,
    receipts INTEGER NOT NULL,
    message BLOB NOT NULL CHECK (length(message) = 32),
    sent_at INTEGER NOT NULL,
    tries INTEGER NOT NULL
) STRICT;

-- Provider: what was posted, each by the transaction that shows it.
CREATE TABLE posted (
    channel INTEGER NOT NULL REFERENCES channel (id),
    lt BLOB NOT NULL CHECK (length(lt) = 8),
    message BLOB NOT NULL CHECK (length(message) = 32),
    PRIMARY KEY (channel, lt)
) STRICT, WITHOUT ROWID;

-- Client: a second claim for the place of a receipt that it has.
CREATE TABLE conflict (
    channel INTEGER NOT NULL REFERENCES channel (id),
    idx INTEGER NOT NULL,
    provider_key BLOB NOT NULL CHECK (length(provider_key) = 32),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    claim BLOB NOT NULL CHECK (length(claim) = 64),
    PRIMARY KEY (channel, idx, digest)
) STRICT;
