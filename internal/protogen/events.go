package main

// produceRefusals say what the errors of Produce mean.
var produceRefusals = map[string]string{
	"400": "The request is wrong, or the job would refuse one of its events; nothing was written. The details have a ProduceResponse where it is an event.",
	"405": "This view takes no events.",
	"429": "Too much is on its way to Kafka; nothing was written.",
	"503": "No event, or not every one, was written; none of the others will be. Details as for 400.",
	"504": "Of one event at least it is not known whether it was written. Details as for 400.",
}

// finishProduce says what REST takes in place of a ProduceRequest: the events as they are.
func finishProduce(operation object) {
	operation["requestBody"] = object{"required": true, "content": object{
		"application/json":     object{"schema": object{"type": "object", "description": "One event."}},
		"application/x-ndjson": object{"schema": object{"type": "string", "description": "One event a line, 10,000 at most; 1 MiB in all.", "maxLength": 1 << 20}},
	}}
	operation["parameters"] = []any{object{
		"name": "partial", "in": "query", "schema": object{"type": "string", "enum": []any{"true", "false"}, "default": "false"},
		"description": "Write what can be written though other events of the request cannot, and answer 200: each event's result tells.",
	}}
	for status, response := range operation["responses"].(object) {
		if text := produceRefusals[status]; text != "" {
			response.(object)["description"] = text
		}
	}
}
