"""Pictures and clips, in and out: files, colours, sound, timing; optical flow. Nothing here knows what a face is."""
