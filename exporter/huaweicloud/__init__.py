"""What every service of Huawei Cloud needs: HTTP, error codes, signing, IAM."""
