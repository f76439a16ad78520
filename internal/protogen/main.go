// Command protogen makes the files that follow from proto/tidemark/v1/view.proto: Go, Connect and the OpenAPI document.
// With -check it writes nothing and fails where a file differs from what would be made.
//
// It is run by `make generate` and `make lint`, in the root of the tree; the plugins lie in bin/, built from tools/go.mod.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	_ "google.golang.org/genproto/googleapis/api/annotations" // the file that view.proto imports
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

// source is the file from which everything is made; what is made lies beside it.
const source = "tidemark/v1/view.proto"

const (
	base     = "proto/tidemark/v1/openapi.base.yaml" // what the document says of itself
	document = "tidemark/v1/openapi.json"
)

// plugins and their parameters.
var plugins = []struct{ name, parameter string }{
	{"protoc-gen-go", "paths=source_relative"},
	{"protoc-gen-connect-go", "paths=source_relative,simple"},
	{"protoc-gen-connect-openapi", "features=google.api.http,with-proto-names,trim-unused-types,short-operation-ids,short-service-tags,base=" + base + ",format=json,path=" + document},
}

func main() {
	check := flag.Bool("check", false, "write nothing; fail where a file differs")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	files, err := compile()
	if err != nil {
		return err
	}
	for _, p := range plugins {
		made, err := generate(p.name, p.parameter, files)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		for _, f := range made {
			path, content := filepath.Join("proto", f.GetName()), []byte(f.GetContent())
			if f.GetName() == document {
				if content, err = finish(content); err != nil {
					return err
				}
			}
			if !check {
				if err := write(path, content); err != nil {
					return err
				}
				continue
			}
			have, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if !bytes.Equal(have, content) {
				return fmt.Errorf("%s is not what %s makes: run `make generate` and commit what it changes", path, source)
			}
		}
	}
	return nil
}

func write(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// compile gives the source and all that it imports, each after its own imports.
func compile() ([]*descriptorpb.FileDescriptorProto, error) {
	compiler := protocompile.Compiler{
		Resolver: protocompile.CompositeResolver{
			&protocompile.SourceResolver{ImportPaths: []string{"proto"}},
			protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
				file, err := protoregistry.GlobalFiles.FindFileByPath(path)
				return protocompile.SearchResult{Desc: file}, err
			}),
		},
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(context.Background(), source)
	if err != nil {
		return nil, err
	}
	var all []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		if result, ok := file.(linker.Result); ok { // with its comments
			all = append(all, result.FileDescriptorProto())
			return
		}
		all = append(all, protodesc.ToFileDescriptorProto(file))
	}
	add(compiled[0])
	return all, nil
}

func generate(plugin, parameter string, files []*descriptorpb.FileDescriptorProto) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	request, err := proto.Marshal(&pluginpb.CodeGeneratorRequest{
		FileToGenerate: []string{source}, Parameter: &parameter, ProtoFile: files,
	})
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join("bin", plugin))
	cmd.Stdin, cmd.Stderr = bytes.NewReader(request), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return nil, err
	}
	if response.Error != nil {
		return nil, fmt.Errorf("%s", response.GetError())
	}
	return response.File, nil
}
