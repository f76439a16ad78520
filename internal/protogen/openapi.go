package main

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// What a .proto cannot say of the service over REST, and the plugin does not know. The view's tests hold the document against
// the answers.

// everywhere are the statuses of the errors that every operation can answer with: a fault, and what the guard before a view says.
var everywhere = []string{"401", "403", "429", "500"}

// refusals are those of each operation beside.
var refusals = map[string][]string{
	"View_Get":        {"400", "404", "410", "503", "504"},
	"View_BatchGet":   {"400", "410", "503", "504"},
	"View_List":       {"400", "410", "503", "504"},
	"View_ListByFlag": {"400", "410", "503", "504"},
	"View_Watch":      {"400", "503"},
	"View_Produce":    {"400", "405", "503", "504"},
	"View_Status":     {"400"},
}

var refusalTexts = map[string]string{
	"400": "The request is wrong; the message names what.",
	"401": "Nobody has said who they are, or the credential does not hold.",
	"403": "The principal lacks the role.",
	"404": "No event of the ID was counted.",
	"410": "The token is of a topic that is no more.",
	"429": "A limit is reached.",
	"500": "A fault of the view.",
	"503": "Not ready, or older than max_age.",
	"504": "The events of at_least were not covered in time; the details say how far it is.",
}

type object = map[string]any

// Schemas that are narrower than what the plugin derives from the types.
var (
	duration  = object{"type": "string", "pattern": `^[0-9]{1,9}(\.[0-9]{1,9})?s$`, "examples": []any{"0.5s", "10s"}}
	parameter = map[string]object{
		"id":       {"type": "string", "minLength": 1, "maxLength": 1024},
		"flag":     {"type": "string", "minLength": 1},
		"prefix":   {"type": "string", "maxLength": 1024},
		"from":     {"type": "string", "pattern": `^(` + place + `)?$`},
		"limit":    {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
		"at_least": {"type": "string", "pattern": `^(` + token + `(,` + token + `)*)?$`, "examples": []any{"3@1042"}},
		"wait":     queryDuration,
		"max_age":  queryDuration,
	}
	queryDuration = object{"type": "string", "pattern": `^[0-9]{1,6}(\.[0-9]{1,9})?(ms|s|m|h)$`, "examples": []any{"500ms", "10s"}}
	schemas       = map[string]object{
		"google.protobuf.Duration": duration,
		"google.protobuf.Value": { // a list is of scalars; and openapi-typescript has no words for a type that holds itself
			"type": []any{"null", "boolean", "string", "array"}, "items": object{"type": []any{"null", "boolean", "string"}},
		},
	}
)

// place is where to go on watching.
const place = `now|[A-Za-z0-9_-]{24,}`

const token = `[0-9]{1,10}@[0-9]{1,18}(\.[0-9]{1,9}\.[A-Za-z0-9_-]{22})?`

// nullable are the fields that are null where the message is absent. All others are always there.
var nullable = map[string][]string{
	"tidemark.v1.AsOf": {"time"}, "tidemark.v1.Freshness": {"time", "age", "table_age"}, "tidemark.v1.Found": {"state"},
	"tidemark.v1.Change": {"state"}, "tidemark.v1.Heartbeat": {"age", "table_age"},
	"tidemark.v1.GetResponse": {"age", "table_age"}, "tidemark.v1.BatchGetResponse": {"age", "table_age"},
	"tidemark.v1.ListResponse": {"age", "table_age"}, "tidemark.v1.ListByFlagResponse": {"age", "table_age"},
	"tidemark.v1.StatusResponse": {"age", "table_age"}, "tidemark.v1.PartitionStatus": {"age", "table_age"},
	"tidemark.v1.ProduceResult": {"error"},
}

// finish completes the document.
func finish(content []byte) ([]byte, error) {
	var doc struct {
		object
		Paths      map[string]map[string]object
		Components map[string]map[string]object
	}
	if err := json.Unmarshal(content, &doc.object); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, err
	}
	for _, operations := range doc.Paths {
		for _, operation := range operations {
			finishOperation(operation)
		}
	}
	all := doc.Components["schemas"]
	for name, schema := range all {
		finishSchema(name, schema)
	}
	maps.Copy(all, schemas)
	if batch, ok := all["tidemark.v1.BatchGetRequest"]["properties"].(object); ok {
		ids := batch["ids"].(object)
		ids["minItems"], ids["maxItems"], ids["items"] = 1, 1000, parameter["id"]
		batch["at_least"] = orNull(parameter["at_least"])
		batch["wait"], batch["max_age"] = orNull(duration), orNull(duration)
	}
	doc.object["paths"], doc.object["components"] = doc.Paths, doc.Components
	used := map[string]bool{}
	if err := references(doc.Paths, all, used); err != nil {
		return nil, err
	}
	maps.DeleteFunc(all, func(name string, _ object) bool { return !used[name] })
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	err := encoder.Encode(doc.object)
	return out.Bytes(), err
}

// orNull allows null too: in a body it says that a field is absent.
func orNull(schema object) object {
	schema = maps.Clone(schema)
	schema["type"] = []any{schema["type"], "null"}
	return schema
}

// references finds the schemas that part of the document needs, directly or through others.
func references(part any, schemas map[string]object, used map[string]bool) error {
	text, err := json.Marshal(part)
	if err != nil {
		return err
	}
	for _, found := range reference.FindAllSubmatch(text, -1) {
		name := string(found[1])
		if used[name] {
			continue
		}
		used[name] = true
		if err := references(schemas[name], schemas, used); err != nil {
			return err
		}
	}
	return nil
}

var reference = regexp.MustCompile(`"\$ref":"#/components/schemas/([^"]+)"`)

func finishOperation(operation object) {
	if parameters, ok := operation["parameters"].([]any); ok {
		for _, p := range parameters {
			p := p.(object)
			if schema, ok := parameter[p["name"].(string)]; ok {
				p["schema"] = schema
			}
		}
	}
	responses := operation["responses"].(object)
	for _, status := range slices.Concat(everywhere, refusals[operation["operationId"].(string)]) {
		response := object{"description": refusalTexts[status], "content": object{
			"application/json": object{"schema": object{"$ref": "#/components/schemas/Error"}},
		}}
		if status == "503" || status == "429" {
			response["headers"] = object{"Retry-After": object{"description": "Seconds.", "schema": object{"type": "integer"}}}
		}
		if status == "401" {
			response["headers"] = object{"WWW-Authenticate": object{"description": "Bearer.", "schema": object{"type": "string"}}}
		}
		responses[status] = response
	}
	switch operation["operationId"] {
	case "View_Produce":
		finishProduce(operation)
	case "View_Watch":
		finishWatch(operation)
	case "View_Get":
		etag := object{"ETag": object{"description": "Generation and version of the state.", "schema": object{"type": "string"}}}
		responses["200"].(object)["headers"] = etag
		responses["304"] = object{"description": "The state is the one of If-None-Match.", "headers": etag}
		operation["parameters"] = append(operation["parameters"].([]any), object{
			"name": "If-None-Match", "in": "header", "description": "An ETag that was given before.", "schema": object{"type": "string"},
		})
	}
}

// finishSchema says what answers always have, and how 64-bit integers are written. Answers may have more in time, so that
// nothing is said against other fields there.
func finishSchema(name string, schema object) {
	properties, ok := schema["properties"].(object)
	if !ok {
		return
	}
	for _, p := range properties {
		p := p.(object)
		delete(p, "title")
		if p["format"] == "int64" {
			p["type"], p["pattern"] = "string", `^-?[0-9]{1,20}$`
		}
	}
	if strings.HasSuffix(name, "Request") {
		return
	}
	delete(schema, "additionalProperties")
	schema["required"] = slices.Sorted(maps.Keys(properties))
	for _, field := range nullable[name] {
		p := properties[field].(object)
		p["anyOf"] = []any{object{"$ref": p["$ref"]}, object{"type": "null"}}
		delete(p, "$ref")
	}
}
