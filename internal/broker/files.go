package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
)

// mendFiles makes what a kill left in kfake's files mean what was acknowledged. kfake would take two things wrongly:
//
//   - A batch whose entry in the index was not written yet counts as one outside any transaction, which everybody may read. It is
//     cut off: nothing was acknowledged before the entry was there.
//   - A snapshot of the last Close is believed where nothing was written since, and with it that no transaction is open, though the
//     one that was open then is not known any more. Without a snapshot kfake reads the partition.
func mendFiles(data string) error {
	parts, err := os.ReadDir(filepath.Join(data, "partitions"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, part := range parts {
		dir := filepath.Join(data, "partitions", part.Name())
		if err := remove(filepath.Join(dir, "snapshot.json")); err != nil {
			return err
		}
		segments, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, f := range segments {
			if base, ok := strings.CutSuffix(f.Name(), ".dat"); ok {
				if err := cutUnindexed(filepath.Join(dir, base)); err != nil {
					return fmt.Errorf("cut what was not acknowledged: %w", err)
				}
			}
		}
	}
	return nil
}

// The files of a segment: batches as on the wire, with their length after 8 bytes of offset, and one entry of the index for each.
const (
	batchHeader = 12
	indexEntry  = 15
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// cutUnindexed ends a segment after the last batch that the index has whole.
func cutUnindexed(segment string) error {
	index, err := os.ReadFile(segment + ".idx")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	batches, err := os.ReadFile(segment + ".dat")
	if err != nil {
		return err
	}
	end := 0
	for ; len(index) >= indexEntry && whole(index[:indexEntry]); index = index[indexEntry:] {
		if len(batches)-end < batchHeader {
			break
		}
		size := batchHeader + int(binary.BigEndian.Uint32(batches[end+8:]))
		if len(batches)-end < size {
			break
		}
		end += size
	}
	if end == len(batches) {
		return nil
	}
	return os.Truncate(segment+".dat", int64(end))
}

// whole checks the sum of an entry of the index, in its second byte.
func whole(entry []byte) bool { return byte(crc32.Checksum(entry[2:], castagnoli)) == entry[1] }
