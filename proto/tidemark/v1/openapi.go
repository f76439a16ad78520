package tidemarkv1

import _ "embed"

// OpenAPI describes the service over REST: an OpenAPI 3.1 document in JSON, made from view.proto.
//
//go:embed openapi.json
var OpenAPI []byte
