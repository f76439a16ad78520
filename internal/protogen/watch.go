package main

// watchEvents says what a watch is over REST, where it is no sequence of WatchResponses.
const watchEvents = `Server-sent events; the schema is that of each. The id of an event is its place: what Last-Event-ID or from takes to go on
after it. The data is JSON, by the event's name:
- change, a Change: a committed version of an ID.
- heartbeat, a Heartbeat: at once, saying where the watch begins, and then whenever nothing else was told for a while.
- reset, a Reset: versions may have been missed, and the stream ends. A reason that begins with "gone" comes with the id "now":
  read again, and go on from now. One that begins with "slow" comes without: the id before it still holds.`

// finishWatch describes the stream of server-sent events.
func finishWatch(operation object) {
	var events []any
	for _, e := range []struct{ name, message string }{{"change", "Change"}, {"heartbeat", "Heartbeat"}, {"reset", "Reset"}} {
		required := []any{"event", "data", "id"}
		if e.name == "reset" {
			required = required[:2]
		}
		events = append(events, object{"title": e.name, "type": "object", "required": required, "properties": object{
			"event": object{"const": e.name},
			"id":    object{"type": "string", "pattern": `^(` + place + `)$`},
			"data": object{
				"type": "string", "contentMediaType": "application/json",
				"contentSchema": object{"$ref": "#/components/schemas/tidemark.v1." + e.message},
			},
		}})
	}
	operation["responses"].(object)["200"] = object{"description": watchEvents, "content": object{
		"text/event-stream": object{"schema": object{"oneOf": events}},
	}}
	operation["parameters"] = append(operation["parameters"].([]any), object{
		"name": "Last-Event-ID", "in": "header", "schema": parameter["from"],
		"description": "The id of the last event that was taken; it goes before from. Browsers send it by themselves.",
	})
}
