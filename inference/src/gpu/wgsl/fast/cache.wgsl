// A page of the cache has $PAGE positions of every key and value head of one layer. Of each head: keys as
// [dimension][position], values as [position][dimension].
const OF_HEAD: u32 = 2u * $PAGEu * $HEADu;

fn key_at(page: u32, head: u32, i: u32) -> u32 {
    return (page * $KVu + head) * OF_HEAD + i * $PAGEu;
}

fn value_at(page: u32, head: u32, slot: u32) -> u32 {
    return (page * $KVu + head) * OF_HEAD + $PAGEu * $HEADu + slot * $HEADu;
}
