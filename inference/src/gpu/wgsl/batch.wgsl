// Words of the batch: its rows, its wanted rows, the stride of scores, nothing; then of each row its
// position and where its pages begin; then the wanted rows; then page numbers.
const ROWS_AT: u32 = 4u;
const WANTED_AT: u32 = $WANTED_ATu;
const PAGES_AT: u32 = $PAGES_ATu;
