"""Write-once object stores: a local folder and S3, behind one protocol. Not here: what the objects mean."""
