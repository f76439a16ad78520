package eos

import (
	"testing"

	"github.com/IBM/sarama"
)

// What is held until the commit must hold the input back, wherever in the record it lies.
func TestPartition_HeadersOfOutputsCountAsUncommitted(t *testing.T) {
	p := &partition{}
	p.emit(Output{Topic: "out", Headers: []sarama.RecordHeader{{Key: make([]byte, 1000), Value: make([]byte, 1_000_000)}}})
	if p.bytes < 1_001_000 {
		t.Errorf("got %d bytes for an output with headers of 1,001,000", p.bytes)
	}
}

// A value of no bytes is no tombstone, and an empty key is not null, whatever was queued before.
func TestPartition_OutputsKeepEmptyApartFromNull(t *testing.T) {
	p := &partition{}
	p.emit(Output{Topic: "out", Key: []byte{}, Value: []byte{}})
	p.emit(Output{Topic: "out"})
	p.emit(Output{Topic: "out", Key: []byte("k"), Value: []byte{}})
	for i, want := range []bool{false, true, false} {
		if r := p.outputs[i]; (r.Key == nil) != want || (r.Value == nil) != want {
			t.Errorf("output %d: got key %v, value %v, want null: %v", i, r.Key, r.Value, want)
		}
	}
}
