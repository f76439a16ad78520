package main

// watchEvents says what a watch is over REST, where it is no sequence of WatchResponses.
const watchEvents = `Server-sent events. The id of an event is its place: what Last-Event-ID or from takes to go on after it. The data of each
is JSON, by its name:
- change, a Change: a committed version of an ID.
- heartbeat, a Heartbeat: first of all where nothing was missed, and then whenever nothing else was told for a while.
- reset, a Reset: versions may have been missed, and the stream ends. A reason that begins with "gone" comes with the id "now":
  read again, and go on from now. One that begins with "slow" comes without: the id before it still holds.`

const watchExample = `retry: 1000

id: AQGgo6SlpqeoqaqrrK2ur7AEAAEFBQ
event: heartbeat
data: {"age":"0.094s","table_age":"0.021s"}

`

// finishWatch describes the stream of server-sent events. OpenAPI 3.1 knows no schema of a part of a stream; x-events has
// those of the events' data, by their names.
func finishWatch(operation object) {
	events := object{}
	for event, message := range map[string]string{"change": "Change", "heartbeat": "Heartbeat", "reset": "Reset"} {
		events[event] = object{"$ref": "#/components/schemas/tidemark.v1." + message}
	}
	operation["responses"].(object)["200"] = object{"description": watchEvents, "content": object{
		"text/event-stream": object{"schema": object{"type": "string"}, "example": watchExample, "x-events": events},
	}}
	operation["parameters"] = append(operation["parameters"].([]any), object{
		"name": "Last-Event-ID", "in": "header", "schema": parameter["from"],
		"description": "The id of the last event that was taken; it goes before from. Browsers send it by themselves.",
	})
}
