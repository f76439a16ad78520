// Package prototest holds bytes that were written by hand against a .proto file, for tests. It reads the file
// itself: there is no generated code that could differ from it.
package prototest

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Load compiles the file at path.
func Load(t testing.TB, path string) protoreflect.FileDescriptor {
	t.Helper()
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{filepath.Dir(path)}}}
	files, err := compiler.Compile(context.Background(), filepath.Base(path))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return files[0]
}

// Message finds a message by its name in the file.
func Message(t testing.TB, file protoreflect.FileDescriptor, name string) protoreflect.MessageDescriptor {
	t.Helper()
	md := file.Messages().ByName(protoreflect.Name(name))
	if md == nil {
		t.Fatalf("%s has no message %s", file.Path(), name)
	}
	return md
}

// Parse reads b as the message. Bytes that break it or that hold a field it does not have fail the test.
func Parse(t testing.TB, md protoreflect.MessageDescriptor, b []byte) protoreflect.Message {
	t.Helper()
	m := dynamicpb.NewMessage(md)
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatalf("%s of %x: %v", md.Name(), b, err)
	}
	if path := unknown(m); path != "" {
		t.Fatalf("%s of %x: unknown fields in %s", md.Name(), b, path)
	}
	return m
}

// Same fails the test unless the message, read and written by Protobuf, gives b again.
func Same(t testing.TB, md protoreflect.MessageDescriptor, b []byte) protoreflect.Message {
	t.Helper()
	m := Parse(t, md, b)
	if again := Encode(t, m); !bytes.Equal(again, b) {
		t.Fatalf("%s: ours differs from Protobuf's:\ngot  %x\nwant %x", md.Name(), b, again)
	}
	return m
}

// Encode writes the message by Protobuf.
func Encode(t testing.TB, m protoreflect.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	if err != nil {
		t.Fatalf("encode %s: %v", m.Descriptor().Name(), err)
	}
	return b
}

// unknown is the path to a message with unknown fields, if there is one.
func unknown(m protoreflect.Message) (path string) {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().Name())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := 0; i < v.List().Len() && path == ""; i++ {
				path = unknown(v.List().Get(i).Message())
			}
		default:
			path = unknown(v.Message())
		}
		return path == ""
	})
	return path
}
