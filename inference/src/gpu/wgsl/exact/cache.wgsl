// A page of the cache has $PAGE positions of every key and value head of one layer. Of each head: keys as
// [pair of dimensions][position], values as [position][pair of dimensions], both two 16-bit integers a word;
// then the exponents of the keys and of the values.
const OF_HEAD: u32 = $PAGEu * ($HEADu + 2u);

fn key_at(page: u32, head: u32, pair: u32) -> u32 {
    return (page * $KVu + head) * OF_HEAD + pair * $PAGEu;
}

fn value_at(page: u32, head: u32, slot: u32) -> u32 {
    return (page * $KVu + head) * OF_HEAD + $PAGEu * ($HEADu / 2u) + slot * ($HEADu / 2u);
}

fn exponents_at(page: u32, head: u32) -> u32 {
    return (page * $KVu + head) * OF_HEAD + $PAGEu * $HEADu;
}
